"""A race: queries are asked in waves, in random order, and no more of them once the subject is hopeless.

What a race may get wrong, and how seldom, is said at `sealkit.stats.hopeless`. Its early end says that the subject is
below what it has to beat, not by how much: its accuracy is of the questions asked alone and biased downwards, so the
controller records such a trial as stopped early, gives it no reward and never selects it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.stats import enough, hopeless
from sealkit.types import NOT_ASKED, Outcome, Query, Race, Verdict, seed_of


def waves(queries: Sequence[Query], race: Race, seed: int) -> list[list[Query]]:
    """The queries, `race.wave` at a time, in an order that the seed and their names alone decide: the same for every
    trial of a group."""
    order = sorted(queries, key=lambda query: seed_of(seed, "order of a race", query.query_id))
    return [order[first : first + race.wave] for first in range(0, len(order), race.wave)]


def is_over(verdicts: Sequence[Verdict], n: int, to_beat: float, race: Race) -> bool:
    """Whether, after whole waves, all n queries would not bring the subject up to `to_beat`.

    An ungraded answer is taken for a right one: no trial ends because its judge failed.
    """
    looks = hopeless(n, enough(to_beat, n), race.wave, race.confidence)
    return sum(v.outcome is not Outcome.INCORRECT for v in verdicts) <= looks[len(verdicts) // race.wave - 1]


def in_order(queries: Sequence[Query], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts in the order of the queries; UNGRADED, "not asked", where there is none."""
    asked = {verdict.query_id: verdict for verdict in verdicts}
    return tuple(
        asked.get(q.query_id) or Verdict(query_id=q.query_id, answer="", outcome=Outcome.UNGRADED, reason=NOT_ASKED)
        for q in queries
    )
