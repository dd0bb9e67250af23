"""Whole runs, in one process, on fakes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from controller.db import runs
from controller.report.run import build_report
from sealkit.config import CostConfig
from sealkit.errors import ModelMismatch, NonFiniteLoss, QueueFull, Unavailable
from sealkit.resources import (
    Editor,
    PolicyTrained,
    RoundFinished,
    RunState,
    RunStateChanged,
    TrialFinished,
    TrialPhase,
    TrialState,
)
from sealkit.types import Outcome
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import MODEL, graded, records
from tests.unit.controller.controller_system import System, science, until
from tests.unit.controller.rerun_fakes import TellingServices


async def test_a_run_has_exactly_the_trials_of_the_algorithm(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    assert run.state is RunState.SUCCEEDED
    trials = await system.trials(run)
    kinds = Counter((t.phase, t.editor) for t in trials)
    assert kinds == {
        (TrialPhase.E_STEP, Editor.POLICY): 2 * 2 * 3,
        (TrialPhase.E_STEP, Editor.PASSAGE_ONLY): 2 * 2,
        (TrialPhase.HELD_OUT, Editor.POLICY): 3 * 2,
        (TrialPhase.HELD_OUT, Editor.PASSAGE_ONLY): 2,
    }
    assert {t.state for t in trials} == {TrialState.SUCCEEDED, TrialState.REJECTED}
    assert run.progress.trials_done == run.progress.trials_total == len(trials)
    assert run.progress.rounds_done == 2


async def test_a_rejected_self_edit_is_worth_what_its_policy_knows_by_itself(system: System) -> None:
    system.services.text = lambda context, index, seed: "bad"
    async with system.working():
        config = {"passage_only": False, "selection": {"must_beat_passage_only": False}}
        run = await system.until(await system.create(rounds=1, **config))
    trials = await system.trials(run)
    assert {(t.state, t.baseline_accuracy) for t in trials} == {(TrialState.REJECTED, 0.25)}
    assert (await system.policies(run))[0].held_out_accuracy == 0.25


async def test_planned_total_stands_from_the_start(system: System) -> None:
    run = await system.create()
    assert run.progress.trials_total == 24


async def test_policies_learn_from_what_was_selected(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    first, second, third = await system.policies(run)
    selected = [t for t in await system.trials(run) if t.selected]
    assert first.adapter is None
    assert first.forgetting == 0.0
    assert (second.parent, third.parent) == (first.name, second.name)
    assert (second.round, third.round) == (0, 1)
    assert [policy.version for policy in (first, second, third)] == [0, 1, 2]
    assert {policy.run for policy in (first, second, third)} == {run.name}
    assert [*second.trials, *third.trials] == [t.name for t in selected]
    assert system.services.taught == [[t.completion for t in selected if f"/rounds/{i}/" in t.name] for i in range(2)]
    assert third.forgetting == 0.5


async def test_a_policys_score_is_what_the_report_says_of_its_self_edits(system: System) -> None:
    writing = system.services.text
    system.services.text = lambda context, index, seed: "bad" if context == "c5" else writing(context, index, seed)
    async with system.working():
        run = await system.until(await system.create(held_out={"samples": 2}))
    versions, found = await system.policies(run), await system.trials(run)
    assert {t.context_id for t in found if t.phase is TrialPhase.HELD_OUT and t.rejection} >= {"c5"}
    said = {row.key: row.accuracy.mean for row in build_report(run, found, versions, CostConfig()).rows}
    scores = [said[f"held_out.theta_{i}.self_edit.mean"] for i in range(len(versions))]
    assert [policy.held_out_accuracy for policy in versions] == pytest.approx(scores)


async def test_selected_trials_beat_baseline_and_passage(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    trials = await system.trials(run)
    selected = [t for t in trials if t.selected]
    assert selected
    for trial in selected:
        parent = trial.name.rpartition("/trials/")[0]
        passage = next(
            t for t in trials if t.editor == Editor.PASSAGE_ONLY and t.context_id == trial.context_id
            and t.name.startswith(parent) and t.phase is TrialPhase.E_STEP
        )  # fmt: skip
        assert trial.reward is not None
        assert passage.reward is not None
        assert trial.reward > passage.reward
        assert trial.reward > 0


async def test_events_tell_each_thing_once_and_in_order(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    events = await system.events(run)
    assert [e.cursor for e in events] == [str(i + 1) for i in range(len(events))]
    states = [e.kind.state for e in events if isinstance(e.kind, RunStateChanged)]
    assert states == [RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED]
    ended = Counter(e.kind.trial.name for e in events if isinstance(e.kind, TrialFinished))
    assert ended == {t.name: 1 for t in await system.trials(run)}
    assert [e.kind.kept > 0 for e in events if isinstance(e.kind, PolicyTrained)] == [True, True]
    assert sum(isinstance(e.kind, RoundFinished) for e in events) == 2
    done = [e.progress.trials_done for e in events]
    assert done == sorted(done)
    assert await system.events(run, events[5].cursor) == events[6:]


async def test_held_out_contexts_are_sampled_with_the_same_seeds_under_every_policy(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    texts = Counter(t.completion.rpartition(" ")[0] for t in await system.trials(run) if "/heldout-theta" in t.name)
    assert set(texts.values()) == {3}  # the text but for the policy's mark


async def test_passage_only_trains_on_as_much_text_as_its_group(system: System) -> None:
    system.services.text = lambda context, index, seed: "good" * 10 * (index + 1)
    async with system.working():
        run = await system.until(await system.create(rounds=1, contexts_per_round=1, held_out={"samples": 0}))
    assert run.state is RunState.SUCCEEDED
    edits = [s for s in system.services.specs if s.examples[0].text.startswith("good")]
    passage = next(s for s in system.services.specs if s.examples[0].text.startswith("Fact"))
    mean = sum(len(s.examples[0].text) * s.optimisation.epochs for s in edits) / 3
    length = len(passage.examples[0].text)
    assert abs(passage.optimisation.epochs * length - mean) <= length / 2


async def test_nothing_kept_leaves_the_policy_and_needs_no_second_scoring(system: System) -> None:
    system.services.outcome = lambda subject, query: Outcome.INCORRECT
    async with system.working():
        run = await system.until(await system.create())
    assert run.state is RunState.SUCCEEDED
    assert len(await system.policies(run)) == 1
    assert system.services.taught == []
    assert run.progress.trials_done == run.progress.trials_total == 20
    trained = [e.kind for e in await system.events(run) if isinstance(e.kind, PolicyTrained)]
    assert [t.kept for t in trained] == [0, 0]
    assert {t.policy.name for t in trained} == {f"policies/{run.name.removeprefix('runs/')}-0"}


async def test_start_from_base_teaches_everything_kept_so_far(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create(m_step={"start_from": "base"}))
    _, second, third = await system.policies(run)
    assert set(second.trials) < set(third.trials)


async def test_a_run_starts_from_another_runs_policy(system: System) -> None:
    async with system.working():
        one = await system.until(await system.create())
        last = (await system.policies(one))[-1]
        two = await system.until(await system.create(request_id="r2", start_policy=last.name, rounds=1))
    assert two.state is RunState.SUCCEEDED
    first = (await system.policies(two))[0]
    assert (first.parent, first.adapter) == (last.name, last.adapter)


async def test_services_that_are_away_delay_a_run_and_burn_no_attempt(system: System) -> None:
    away = Counter[str]()

    async def before(call: str, what: str) -> None:
        away[call] += 1
        if away[call] <= 2:
            raise Unavailable("gone") if call != "train" else QueueFull("full", retry_after=0.01)

    system.services.before = before
    async with system.working():
        run = await system.until(await system.create(rounds=1))
    assert run.state is RunState.SUCCEEDED
    assert {t.attempts for t in await system.trials(run)} == {1}


async def test_a_trial_that_fails_says_why_and_is_never_kept(system: System) -> None:
    async def before(call: str, what: str) -> None:
        if call == "train" and "of c0" in what:
            raise NonFiniteLoss("loss became NaN")

    system.services.before = before
    async with system.working():
        run = await system.until(await system.create(contexts_per_round=4, rounds=1))
    assert run.state is RunState.SUCCEEDED
    failed = [t for t in await system.trials(run) if t.state is TrialState.FAILED]
    assert failed
    assert {t.context_id for t in failed} == {"c0"}
    assert {t.error.reason for t in failed if t.error} == {"NON_FINITE_LOSS"}
    assert not any(t.selected for t in failed)


async def test_a_plug_in_that_crashes_costs_its_trial_alone(system: System) -> None:
    async def before(call: str, what: str) -> None:
        if call == "sample" and what == "c1":
            raise ZeroDivisionError("oops")

    system.services.before = before
    async with system.working():
        run = await system.until(await system.create(contexts_per_round=4, rounds=1))
    assert run.state is RunState.SUCCEEDED
    crashed = [t for t in await system.trials(run) if t.error]
    assert {(t.context_id, t.error.reason) for t in crashed if t.error} == {("c1", "INTERNAL")}


async def test_a_run_in_which_every_trial_fails_fails_with_the_first_reason(system: System) -> None:
    async def before(call: str, what: str) -> None:
        if call == "train":
            raise NonFiniteLoss("loss became NaN")

    system.services.before = before
    async with system.working():
        run = await system.until(await system.create())
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert "NON_FINITE_LOSS" in run.error.message


async def test_too_many_ungraded_answers_are_no_score(system: System) -> None:
    system.services.outcome = lambda subject, query: Outcome.UNGRADED if subject else Outcome.CORRECT
    async with system.working():
        run = await system.until(await system.create(rounds=1, held_out={"samples": 0}))
    trials = await system.trials(run)
    tried = [t for t in trials if t.state is not TrialState.REJECTED]
    assert {t.error.reason for t in tried if t.error} == {"TOO_MANY_UNGRADED"}
    assert {t.reward for t in tried} == {None}


async def test_a_trial_that_is_tried_again_after_its_judge_failed_is_no_rerun(system: System) -> None:
    system.services = services = TellingServices()
    services.outcome = lambda subject, query: Outcome.UNGRADED if subject else Outcome.CORRECT
    async with system.working():
        run = await system.until(await system.create(rounds=1))
        failed = {t.name for t in await system.trials(run) if t.state is TrialState.FAILED}
        services.outcome = graded
        await system.database.write(runs.retry, change(run.name, ""), [])
        await system.until(run)
    states = {t.state for t in await system.trials(run) if t.name in failed}
    assert failed
    assert states == {TrialState.SUCCEEDED}
    assert (services.retrained, services.fresh) == (0, 0), "nothing is made anew that was kept"


async def test_services_with_different_models_end_the_run(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    models = iter([MODEL, MODEL.model_copy(update={"digest": "ef" * 32}), MODEL] * 9)

    async def info() -> object:
        return next(models)

    monkeypatch.setattr(system.services, "info", info)
    async with system.working():
        run = await system.until(await system.create())
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.reason == ModelMismatch.reason
    assert "trainer" in run.error.message


async def test_cancel_stops_running_trials_and_resume_ends_as_if_nothing_had_been(system: System) -> None:
    stuck = asyncio.Event()

    async def before(call: str, what: str) -> None:
        if call == "train" and not stuck.is_set():
            await stuck.wait()

    system.services.before = before
    async with system.working():
        run = await system.create()
        run_id = run.name.removeprefix("runs/")
        await until(lambda: system.services.running == 4)
        cancelled = await system.database.write(runs.cancel, change(f"runs/{run_id}", "cancel-1"))
        assert cancelled.state is RunState.CANCELLED
        assert {t.state for t in await system.trials(run)} <= {TrialState.CANCELLED, TrialState.REJECTED}
        await until(lambda: system.services.running == 0)
        stuck.set()
        await system.database.write(runs.resume, change(f"runs/{run_id}", "resume-1"))
        ended = await system.until(run)
        await system.database.write(runs.resume, change(f"runs/{run_id}", "resume-1"))  # again
        again = await system.database.write(runs.cancel, change(f"runs/{run_id}", "cancel-2"))
        assert again.state is RunState.SUCCEEDED
        other = await system.until(await system.create(request_id="undisturbed"))
    assert ended.progress.trials_done == ended.progress.trials_total == 24

    def plain(found: list[dict[str, object]], run_name: str) -> str:
        return str(found).replace(run_name.removeprefix("runs/"), "RUN")

    assert plain(science(await system.trials(ended)), ended.name) == plain(
        science(await system.trials(other)), other.name
    )


async def test_contexts_go_round(system: System) -> None:
    async with system.working():
        run = await system.until(
            await system.create(rounds=3, contexts_per_round=2, editor={"k": 1}, dataset=records(train=3, held_out=0))
        )
    by_round = [{t.context_id for t in await system.trials(run) if f"/rounds/{i}/" in t.name} for i in range(3)]
    assert all(len(contexts) == 2 for contexts in by_round)
    assert set.union(*by_round) == {"c0", "c1", "c2"}
    assert Counter(c for contexts in by_round for c in contexts) == {"c0": 2, "c1": 2, "c2": 2}
