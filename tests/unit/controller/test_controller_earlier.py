"""Contexts learned earlier are asked again, and count as what can be forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.rules.retention import with_earlier
from sealkit.types import Evaluation, Outcome, Retention, Verdict
from tests.unit.controller.controller_fakes import graded
from tests.unit.controller.controller_system import System

side = st.sampled_from(Outcome)


def verdicts(outcomes: list[Outcome]) -> tuple[Verdict, ...]:
    return tuple(Verdict(query_id=f"c/{i}", answer="", outcome=outcome) for i, outcome in enumerate(outcomes))


@given(
    pairs=st.lists(st.tuples(side, side), max_size=12),
    kept=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=9),
)
def test_both_suites_count_by_their_questions(
    pairs: list[tuple[Outcome, Outcome]], kept: list[tuple[bool, bool]]
) -> None:
    n = max(1, len(kept))
    own = Retention(
        kept=len(kept),
        accuracy_before=sum(was for was, _ in kept) / n,
        accuracy_after=sum(now for _, now in kept) / n,
        forgetting=sum(was - now for was, now in kept) / n,
        lost_query_ids=tuple(f"q{i}" for i, (was, now) in enumerate(kept) if was and not now),
    )
    before, after = verdicts([b for b, _ in pairs]), verdicts([a for _, a in pairs])
    found = with_earlier(own, Evaluation(verdicts=after, baseline_verdicts=before, baseline_cached=True))
    known = [a is Outcome.CORRECT for b, a in pairs if b is Outcome.CORRECT and a is not Outcome.UNGRADED]
    assert found is not None
    assert found.kept == len(kept) + len(known)
    if found.kept:
        lost = sum(was - now for was, now in kept) + sum(not now for now in known)
        assert abs(found.forgetting - lost / found.kept) < 1e-9
        assert found.forgetting_low <= found.forgetting <= found.forgetting_high
        assert len(found.lost_query_ids) == len(own.lost_query_ids) + sum(not now for now in known)


async def test_later_trials_are_asked_what_was_learned_before(system: System) -> None:
    system.services.knows = graded
    selection = {"rule": "best_of_k", "must_gain": False, "must_beat_passage_only": False}
    values = {"task": "adapt", "selection": selection, "gate": {"max_forgetting": 1.0}}
    async with system.working():
        run = await system.until(
            await system.create(evaluation={"judge": "exact", "retention_limit": 2, "earlier_contexts": 1}, **values)
        )
    kept = {trial.context_id: trial.retention.kept for trial in await system.trials(run) if trial.retention}
    assert kept["c0"] == 2
    assert max(kept[context] for context in ("c1", "c2", "c3")) > 2
