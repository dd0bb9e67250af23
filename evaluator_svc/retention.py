"""Retention: what the bare base model answers right, asked again before and after."""

from __future__ import annotations

from collections.abc import Sequence

from evaluator_svc.baseline import Baselines
from evaluator_svc.exam import BASE, Exam
from sealkit.types import Outcome, Query, Retention, Usage, Verdict


async def known(baselines: Baselines, exam: Exam, suite: Sequence[Query], limit: int) -> tuple[list[Query], Usage]:
    """The first `limit` queries of the suite (0: all) that the base model answers right, and what it took to know.

    Asked in waves of as many as are still wanted, because a suite may be much longer than its limit.
    """
    kept: list[Query] = []
    usage, asked, wanted = Usage(), 0, limit or len(suite)
    while asked < len(suite) and len(kept) < wanted:
        wave = suite[asked : asked + wanted - len(kept)]
        answered = await baselines.ask_all(exam, BASE, wave)
        kept += [q for q, v in zip(wave, answered.verdicts, strict=True) if v.outcome is Outcome.CORRECT]
        usage, asked = usage + answered.usage, asked + len(wave)
    return kept, usage


def measure(before: Sequence[Verdict], after: Sequence[Verdict]) -> Retention:
    """Forgetting over the queries that were graded on both sides: what is not known of one must not count for the
    other. Without any, all numbers are 0."""
    pairs = [
        (b.query_id, b.outcome is Outcome.CORRECT, a.outcome is Outcome.CORRECT)
        for b, a in zip(before, after, strict=True)
        if Outcome.UNGRADED not in (b.outcome, a.outcome)
    ]
    n = max(len(pairs), 1)
    right_before, right_after = sum(b for _, b, _ in pairs), sum(a for _, _, a in pairs)
    return Retention(
        kept=len(pairs),
        accuracy_before=right_before / n,
        accuracy_after=right_after / n,
        forgetting=(right_before - right_after) / n,
        lost_query_ids=tuple(name for name, was, is_now in pairs if was and not is_now),
    )
