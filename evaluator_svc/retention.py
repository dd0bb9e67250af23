"""Retention: queries that the base model answers right, and those of contexts learned since, before and after an
update."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from evaluator_svc.baseline import Baselines
from evaluator_svc.queries import BASE, QueryRunner
from sealkit.stats import paired_bootstrap, widened
from sealkit.types import Outcome, Query, Retention, Usage, Verdict


async def known(
    baselines: Baselines, runner: QueryRunner, suite: Sequence[Query], limit: int
) -> tuple[list[Query], Usage]:
    """The first `limit` queries of the suite (0: all) that the base model answers right, and the usage.

    They are asked in batches of as many as are still missing, because a suite may be much longer than its limit.
    """
    kept: list[Query] = []
    usage, asked, wanted = Usage(), 0, limit or len(suite)
    while asked < len(suite) and len(kept) < wanted:
        batch = suite[asked : asked + wanted - len(kept)]
        answered = await baselines.ask_all(runner, BASE, batch)
        kept += [q for q, v in zip(batch, answered.verdicts, strict=True) if v.outcome is Outcome.CORRECT]
        usage, asked = usage + answered.usage, asked + len(batch)
    return kept, usage


class Pair(NamedTuple):
    """Whether a query was answered right before (by the baseline) and after (by the subject)."""

    query_id: str
    before: bool
    after: bool


def graded_pairs(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Pair]:
    """The queries that were graded on both sides, so that ungraded answers favour neither."""
    return [
        Pair(b.query_id, b.outcome is Outcome.CORRECT, a.outcome is Outcome.CORRECT)
        for b, a in zip(before, after, strict=True)
        if Outcome.UNGRADED not in (b.outcome, a.outcome)
    ]


def measure(pairs: Sequence[Pair], batch_variant_rate: float = 0.0) -> Retention:
    """Forgetting over the pairs. Its 95 % interval is that of a paired bootstrap over the queries, widened by
    `batch_variant_rate` for each side. Without pairs the numbers are 0 and the interval is the full range."""
    forgetting = paired_bootstrap([pair.after for pair in pairs], [pair.before for pair in pairs])
    if forgetting is None:
        return Retention(kept=0, accuracy_before=0.0, accuracy_after=0.0, forgetting=0.0)
    interval = widened(forgetting, 2 * batch_variant_rate, low=-1.0)
    return Retention(
        kept=len(pairs),
        accuracy_before=fmean(pair.before for pair in pairs),
        accuracy_after=fmean(pair.after for pair in pairs),
        forgetting=forgetting.mean,
        forgetting_low=interval.low,
        forgetting_high=interval.high,
        lost_query_ids=tuple(pair.query_id for pair in pairs if pair.before and not pair.after),
    )
