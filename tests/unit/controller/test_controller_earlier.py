"""Contexts learned earlier are asked again, and count as what can be forgotten."""

from __future__ import annotations

from tests.unit.controller.controller_fakes import graded
from tests.unit.controller.controller_system import System


async def test_later_trials_are_asked_what_was_learned_before(system: System) -> None:
    system.services.knows = graded
    selection = {"rule": "best_of_k", "must_gain": False, "must_beat_passage_only": False}
    values = {"task": "adapt", "selection": selection, "gate": {"max_forgetting": 1.0}}
    async with system.working():
        run = await system.until(
            await system.create(evaluation={"judge": "exact", "retention_limit": 2, "earlier_contexts": 1}, **values)
        )
    found = await system.trials(run)
    kept = {trial.context_id: trial.retention.kept for trial in found if trial.retention}
    assert kept["c0"] == 2
    assert max(kept[context] for context in ("c1", "c2", "c3")) > 2
    of_trials = [request for request in system.services.evaluated if request.adapter]
    assert len(of_trials) == sum(trial.adapter is not None for trial in found), "one call a trial"
    for request in of_trials:
        own, earlier = (
            {query.query_id.split("/")[0] for query in queries}
            for queries in (request.queries, request.earlier_queries)
        )
        assert len(own) == 1
        assert len(earlier) <= 1
        assert not own & earlier
        assert request.retention_queries
