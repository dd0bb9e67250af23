"""Adaptation: contexts learned in a row, each committed, measured and gated."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.db import aliases, contexts, policies
from controller.db.access import FULL_ACCESS
from controller.report.continual import continual, with_continual
from controller.report.run import build_report
from sealkit.config import CostConfig
from sealkit.errors import InvalidConfig
from sealkit.reports import RunReport
from sealkit.resources import Editor, GateState, PolicyVersion, Run, RunState, TrialPhase
from sealkit.types import AdapterRef, Outcome, Policy, digest_of
from tests.unit.controller.controller_fakes import graded, records
from tests.unit.controller.controller_system import System, science

EASY = {"rule": "best_of_k", "must_gain": False, "must_beat_passage_only": False}


async def adapt(system: System, **changes: Any) -> Run:
    """A finished adaptation of three contexts that keeps the best of each group."""
    system.services.knows = graded
    values: dict[str, Any] = {"task": "adapt", "selection": EASY, "gate": {"max_forgetting": 1.0}, **changes}
    async with system.working():
        return await system.until(await system.create(dataset=records(3, 1), **values))


async def report(system: System, run: Run) -> RunReport:
    run_id = run.name.removeprefix("runs/")
    learned = [context.context_id for context in await system.database.read(contexts.of_split, run_id, "train")]
    found = build_report(run, await system.trials(run), await system.policies(run), CostConfig())
    return with_continual(found, learned, await system.database.read(policies.after_rounds, run_id))


def joined(below: PolicyVersion, adapter: AdapterRef | None) -> str:
    assert adapter is not None
    return digest_of("joined", below.adapter, adapter) if below.adapter else adapter.digest


async def test_each_context_is_a_round_and_what_was_scored_is_what_is_committed(system: System) -> None:
    run = await adapt(system, gate={"max_forgetting": 1.0, "alias": "main"})
    assert run.state is RunState.SUCCEEDED
    assert (run.progress.rounds_done, run.progress.rounds_total) == (3, 3)
    assert run.progress.trials_done == run.progress.trials_total == 3 * (3 + 1)
    tried = await system.trials(run)
    assert {trial.phase for trial in tried} == {TrialPhase.E_STEP}
    versions = await system.policies(run)
    assert len(versions) == 4
    for t, (below, above) in enumerate(pairwise(versions)):
        of_round = [trial for trial in tried if trial.name.startswith(f"{run.name}/rounds/{t}/")]
        assert {(trial.context_id, trial.policy) for trial in of_round} == {(f"c{t}", below.name)}
        edits = [trial for trial in of_round if trial.editor == Editor.POLICY]
        (best,) = [trial for trial in edits if trial.selected]
        assert best.reward == max(trial.reward for trial in edits if trial.reward is not None)
        assert above.adapter is not None
        assert above.adapter.digest == joined(below, best.adapter)
        assert (above.parent, above.trials) == (below.name, (best.name,))
    alias = await system.database.read(aliases.get, FULL_ACCESS, "main")
    assert [change.policy for change in alias.history] == [version.name for version in reversed(versions[1:])]


async def test_r_has_a_row_for_the_start_and_one_after_each_commit(system: System) -> None:
    run = await adapt(system)
    found = (await report(system, run)).continual
    assert found is not None
    assert found.contexts == ("c0", "c1", "c2")
    base, *rows = await system.policies(run)
    expected = [
        tuple(sum(graded(p.adapter.digest if p.adapter else "", f"c{j}/{i}") is Outcome.CORRECT for i in range(4)) / 4
              for j in range(3))
        for p in (base, *rows)
    ]  # fmt: skip
    assert list(found.matrix) == expected
    assert found.bwt is not None
    assert found.bwt.mean == pytest.approx(sum(expected[3][j] - expected[j + 1][j] for j in range(2)) / 2)


async def test_killed_over_and_over_it_ends_as_if_nothing_had_been(system: System, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = System(tmp_path / "other")
    values: dict[str, Any] = {"task": "adapt", "selection": EASY, "gate": {"max_forgetting": 1.0, "alias": "main"}}
    for each in (other, system):
        each.services.knows = graded
        killed = await each.create(dataset=records(2, 0), **values)
    deaths = await system.killed_after(killed, (6, 11, 17, 23))
    assert deaths >= 3
    ends = []
    for each in (system, other):
        async with each.working():
            run = await each.until(await each.create(dataset=records(2, 0), **values))
        versions = [policy.model_dump(exclude={"create_time", "usage"}) for policy in await each.policies(run)]
        history = (await each.database.read(aliases.get, FULL_ACCESS, "main")).history
        ends.append((run.state, science(await each.trials(run)), versions, [change.policy for change in history]))
    assert ends[0] == ends[1]
    assert ends[0][0] is RunState.SUCCEEDED
    await other.database.close()


async def test_consolidation_trains_one_adapter_from_the_base_on_all_that_was_kept(system: System) -> None:
    run = await adapt(system, adapt={"commit": "consolidate"}, rehearsal={"examples": 1})
    versions = await system.policies(run)
    assert [len(version.trials) for version in versions] == [0, 1, 2, 3]
    last = system.services.specs[-1]
    kept = [trial for trial in await system.trials(run) if trial.selected]
    assert [example.text for example in last.examples] == [trial.completion for trial in kept]
    assert len(last.rehearsal) == 1
    assert versions[3].adapter == AdapterRef(digest=digest_of("adapter", None, last))


async def test_nothing_accepted_leaves_the_policy_and_still_has_its_row(system: System) -> None:
    system.services.outcome = lambda subject, query_id: Outcome.INCORRECT
    run = await adapt(system, selection={**EASY, "must_gain": True})
    assert run.state is RunState.SUCCEEDED
    assert len(await system.policies(run)) == 1
    assert run.progress.trials_done == run.progress.trials_total == 3 * (3 + 1), "held-out contexts were never planned"
    found = await report(system, run)
    assert found.continual is not None
    assert len(found.continual.matrix) == 4
    assert found.verdict.startswith("0 of 3 contexts were committed")


async def test_a_trial_that_forgot_too_much_is_not_committed_and_the_next_best_is(system: System) -> None:
    first = [trial for trial in await system.trials(await adapt(system)) if trial.selected]
    best = {trial.adapter.digest for trial in first if trial.adapter}
    system.services.lost = lambda subject: 0.9 if subject in best else 0.0
    again = await adapt(system, gate={"max_forgetting": 0.25}, request_id="again")
    kept = [trial for trial in await system.trials(again) if trial.selected]
    assert [trial.context_id for trial in kept] == ["c0", "c1", "c2"]
    assert kept[0].index != first[0].index
    assert (kept[0].reward or 0.0) <= (first[0].reward or 0.0)


async def test_a_commit_that_forgot_too_much_is_refused_and_learning_goes_on(system: System) -> None:
    stacked: set[str] = set()
    join = system.services.join_adapters

    async def noted(policy: Policy, adapter: AdapterRef) -> AdapterRef:
        made = await join(policy, adapter)
        stacked.update([made.digest] if policy.adapter else [])
        return made

    system.services.join_adapters = noted  # type: ignore[method-assign]
    system.services.lost = lambda subject: 0.9 if subject in stacked else 0.0
    run = await adapt(system, gate={"max_forgetting": 0.25, "alias": "main"})
    assert run.state is RunState.SUCCEEDED
    versions = await system.policies(run)
    assert [v.gate for v in versions] == [GateState.PASSED, GateState.PASSED, GateState.REFUSED, GateState.REFUSED]
    last = [trial for trial in await system.trials(run) if trial.context_id == "c2"]
    assert {trial.policy for trial in last} == {versions[1].name}
    assert (await system.database.read(aliases.get, FULL_ACCESS, "main")).policy == versions[1].name
    assert (await report(system, run)).verdict.startswith("1 of 3 contexts were committed, 2 refused")


def test_bwt_and_forgetting_by_hand() -> None:
    rows = [
        {"a": 0.0, "b": 0.2, "c": 0.0},
        {"a": 0.8, "b": 0.4, "c": 0.0},
        {"a": 0.4, "b": 0.6, "c": 0.0},
        {"a": 0.6, "b": 0.0, "c": 1.0},
    ]
    found = continual(("a", "b", "c"), rows)
    assert found.matrix[2] == (0.4, 0.6, 0.0)
    assert found.just_learned is not None
    assert found.at_end is not None
    assert found.bwt is not None
    assert found.forgetting is not None
    assert found.just_learned.mean == pytest.approx((0.8 + 0.6 + 1.0) / 3)
    assert found.at_end.mean == pytest.approx((0.6 + 0.0 + 1.0) / 3)
    assert found.bwt.mean == pytest.approx((-0.2 - 0.6) / 2)
    assert found.forgetting.mean == pytest.approx((0.2 + 0.6) / 2)
    assert (found.bwt.n, found.just_learned.n) == (2, 3)


def test_a_run_under_way_counts_what_it_has_learned_so_far() -> None:
    assert continual(("a", "b"), []).matrix == ()
    assert continual(("a", "b"), [{"a": 0.0, "b": 0.0}]).just_learned is None
    half = continual(("a", "b"), [{"a": 0.0, "b": 0.0}, {"a": 0.5}])
    assert half.matrix == ((0.0, 0.0), (0.5, None))
    assert half.just_learned is not None
    assert (half.just_learned.mean, half.just_learned.n, half.bwt) == (0.5, 1, None)


async def test_rehearsing_the_whole_suite_is_refused(system: System) -> None:
    with pytest.raises(InvalidConfig, match="none is left to measure"):
        await system.create(rehearsal={"examples": 3})
