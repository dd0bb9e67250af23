"""Sequential early stopping: queries are asked in batches, in random order, until the subject has failed the test for
futility.

The error rate of the test is documented at `sealkit.stats.futility_bounds`. An early stop means that the subject is
below what it has to beat, not by how much: its accuracy is that of the asked questions only and biased downwards. So
the controller marks such a trial as stopped early, gives it no reward and never selects it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.stats import enough, futility_bounds
from sealkit.types import NOT_ASKED, EarlyStopping, Outcome, Query, Verdict, seed_of


def batches(queries: Sequence[Query], early_stopping: EarlyStopping, seed: int) -> list[list[Query]]:
    """The queries, `early_stopping.interval` at a time. The order depends only on the seed and the query ids, so it is
    the same for every trial of a group."""
    order = sorted(queries, key=lambda query: seed_of(seed, "order of early stopping", query.query_id))
    return [order[first : first + early_stopping.interval] for first in range(0, len(order), early_stopping.interval)]


def is_over(verdicts: Sequence[Verdict], n: int, to_beat: float, early_stopping: EarlyStopping) -> bool:
    """Whether, after whole batches, the subject will not reach `to_beat` on all n queries.

    An ungraded answer counts as a right one: no trial is stopped because its judge failed.
    """
    bounds = futility_bounds(n, enough(to_beat, n), early_stopping.interval, early_stopping.confidence)
    return (
        sum(v.outcome is not Outcome.INCORRECT for v in verdicts)
        <= bounds[len(verdicts) // early_stopping.interval - 1]
    )


def in_order(queries: Sequence[Query], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts in the order of the queries; UNGRADED, "not asked", for queries without one."""
    asked = {verdict.query_id: verdict for verdict in verdicts}
    return tuple(
        asked.get(q.query_id) or Verdict(query_id=q.query_id, answer="", outcome=Outcome.UNGRADED, reason=NOT_ASKED)
        for q in queries
    )
