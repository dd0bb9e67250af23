"""Retention of a trial with what its run learned earlier: what the base could do, and what was learned since."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sealkit.stats import paired_bootstrap, widened
from sealkit.types import Evaluation, Outcome, Retention, Verdict


def with_earlier(retention: Retention | None, earlier: Evaluation) -> Retention | None:
    """The retention with the earlier contexts' queries that the policy alone answers right, as many more questions
    that could be forgotten; the interval is that of all of them."""
    pairs = [*_pairs_of(retention), *_pairs(earlier.baseline_verdicts, earlier.verdicts)]
    forgetting = paired_bootstrap([now for _, now in pairs], [was for was, _ in pairs])
    if forgetting is None:
        return retention
    interval = widened(forgetting, 2 * earlier.batch_variant_rate, low=-1.0)
    lost = [
        after.query_id
        for before, after in zip(earlier.baseline_verdicts, earlier.verdicts, strict=True)
        if (before.outcome, after.outcome) == (Outcome.CORRECT, Outcome.INCORRECT)
    ]
    return Retention(
        kept=len(pairs),
        accuracy_before=fmean(was for was, _ in pairs),
        accuracy_after=fmean(now for _, now in pairs),
        forgetting=forgetting.mean,
        forgetting_low=interval.low,
        forgetting_high=interval.high,
        lost_query_ids=(*(retention.lost_query_ids if retention else ()), *lost),
    )


def _pairs_of(retention: Retention | None) -> list[tuple[bool, bool]]:
    """(right before, right after) of each question, as far as counts tell; the order tells nothing."""
    if retention is None:
        return []
    n, lost = retention.kept, len(retention.lost_query_ids)
    before, after = round(retention.accuracy_before * n), round(retention.accuracy_after * n)
    gained, stayed = after - (before - lost), before - lost
    rest = n - lost - gained - stayed
    return [(True, False)] * lost + [(False, True)] * gained + [(True, True)] * stayed + [(False, False)] * rest


def _pairs(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[tuple[bool, bool]]:
    """Of what was right before, and graded after."""
    return [
        (True, a.outcome is Outcome.CORRECT)
        for b, a in zip(before, after, strict=True)
        if b.outcome is Outcome.CORRECT and a.outcome is not Outcome.UNGRADED
    ]
