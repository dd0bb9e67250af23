"""Runs that are paused, run out of budget, resumed and tried again: whole runs on fakes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.db import budgets, runs
from sealkit.errors import BudgetExhausted, NonFiniteLoss, RequestIdReused, RunNotResumable, UnknownTrial
from sealkit.resources import Budget, PolicyTrained, Run, RunState, RunStateChanged, StageStarted, TrialState
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System, science, until


def run_id(run: Run) -> str:
    return run.name.removeprefix("runs/")


def gate(system: System, call: str) -> asyncio.Event:
    """Every such call waits until this is set."""
    opened = asyncio.Event()

    async def before(came: str, what: str) -> None:
        if came == call:
            await opened.wait()

    system.services.before = before
    return opened


async def settled(system: System, run: Run) -> None:
    """Returns when no worker has a trial of the run."""
    async with asyncio.timeout(30):
        while any(trial.state is TrialState.RUNNING for trial in await system.trials(run)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def outcome(system: System, run: Run) -> str:
    return str(science(await system.trials(run))).replace(run_id(run), "RUN")


# --- pausing ----------------------------------------------------------------------------------------------------------
async def test_a_paused_run_ends_what_is_under_way_starts_no_more_and_goes_on_as_if_nothing_had_been(
    system: System,
) -> None:
    opened = gate(system, "train")
    async with system.working():
        run = await system.create()
        await until(lambda: system.services.running == 4)
        paused = await system.database.write(runs.pause, change(run.name, "pause-1"))
        assert (paused.state, paused.error, paused.end_time) == (RunState.PAUSED, None, None)
        opened.set()
        await settled(system, run)
        calls = dict(system.services.calls)
        assert calls["train"] <= 4
        states = [trial.state for trial in await system.trials(run)]
        assert states.count(TrialState.QUEUED) == len(states) - (await system.run(run)).progress.trials_done > 0
        other = await system.until(await system.create(request_id="other"))  # the workers are free for others
        assert other.state is RunState.SUCCEEDED
        before = {trial.name for trial in await system.trials(run) if trial.state is TrialState.QUEUED}
        assert {t.name for t in await system.trials(run) if t.state is TrialState.QUEUED} == before
        await system.database.write(runs.resume, change(run.name, "resume-1"))
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    assert {trial.attempts for trial in await system.trials(run)} == {1}
    assert await outcome(system, ended) == await outcome(system, other)
    events = await system.events(run)
    states_told = [event.kind.state for event in events if isinstance(event.kind, RunStateChanged)]
    assert states_told == [
        RunState.QUEUED, RunState.RUNNING, RunState.PAUSED, RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED,
    ]  # fmt: skip


async def test_a_run_paused_in_its_m_step_makes_that_step_again(system: System) -> None:
    opened = gate(system, "policy")
    async with system.working():
        run = await system.create(rounds=1)
        await until(lambda: system.services.calls["policy"] == 1)
        await system.database.write(runs.pause, change(run.name, ""))
        await until(lambda: system.services.running == 0)  # the driver let go
        opened.set()
        await system.database.write(runs.resume, change(run.name, ""))
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    assert sum(isinstance(event.kind, PolicyTrained) for event in await system.events(run)) == 1


async def test_a_worker_that_dies_leaves_nothing_running_in_a_paused_run(system: System) -> None:
    opened = gate(system, "train")
    async with system.working(lease=0.1) as database:
        run = await system.create(rounds=1)
        await until(lambda: system.services.running == 4)
        database.writes_left = 0  # dies with four trials
        await database.died.wait()
    await system.database.write(runs.pause, change(run.name, ""))
    assert TrialState.RUNNING in {trial.state for trial in await system.trials(run)}
    async with system.working(lease=0.1):
        await settled(system, run)
        opened.set()
        await system.database.write(runs.resume, change(run.name, ""))
        assert (await system.until(run)).state is RunState.SUCCEEDED


async def test_a_paused_run_can_be_cancelled_and_ends_its_watch(system: System) -> None:
    run = await system.create()
    await system.database.write(runs.pause, change(run.name, "p"))
    assert (await system.database.write(runs.pause, change(run.name, "p2"))).state is RunState.PAUSED
    assert sum(isinstance(event.kind, RunStateChanged) for event in await system.events(run)) == 2
    cancelled = await system.database.write(runs.cancel, change(run.name, "c"))
    assert cancelled.state is RunState.CANCELLED
    assert (await system.database.write(runs.pause, change(run.name, "p3"))).state is RunState.CANCELLED
    with pytest.raises(RequestIdReused):
        await system.database.write(runs.cancel, change(run.name, "p"))


# --- budgets ----------------------------------------------------------------------------------------------------------
async def test_a_budget_of_trials_starts_exactly_so_many(system: System) -> None:
    async with system.working(), system.working():
        run = await system.until(await system.create(budget={"trials": 5}))
        assert run.state is RunState.PAUSED
        assert run.error is not None
        assert run.error.reason == "BUDGET_EXHAUSTED"
        assert "trials 5 of 5" in run.error.message
        ended = [trial for trial in await system.trials(run) if trial.state.terminal]
        assert len(ended) == run.progress.trials_done == 5
        assert TrialState.RUNNING not in {trial.state for trial in await system.trials(run)}
        with pytest.raises(BudgetExhausted, match="trials 5 of 5"):
            await system.database.write(runs.resume, change(run.name, "again"))
        with pytest.raises(BudgetExhausted):
            await system.database.write(runs.resume, change(run.name, "again"), Budget(trials=3))
        assert (await system.run(run)).state is RunState.PAUSED
        resumed = await system.database.write(runs.resume, change(run.name, "again"), Budget(trials=11))
        assert resumed.error is None
        stopped = await system.until(run)
        assert (stopped.state, stopped.progress.trials_done) == (RunState.PAUSED, 11)
        await system.database.write(runs.resume, change(run.name, "more"), Budget())
        assert (await system.until(run)).state is RunState.SUCCEEDED


async def test_a_run_that_needs_no_more_than_its_budget_succeeds(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create(budget={"trials": 24}))
    assert (run.state, run.progress.trials_done) == (RunState.SUCCEEDED, 24)


async def test_a_budget_of_tokens_counts_what_ends_after_the_limit_was_met(system: System) -> None:
    opened, trainings = asyncio.Event(), itertools.count()

    async def before(call: str, what: str) -> None:
        if call == "train" and next(trainings) > 0:
            await opened.wait()

    system.services.before = before
    system.services.text = lambda context, index, seed: f"good {index}"
    async with system.working():
        run = await system.create(budget={"tokens": 10})  # what one training takes
        stopped = await system.until(run)
        assert stopped.state is RunState.PAUSED
        assert stopped.error is not None
        assert "tokens 10 of 10" in stopped.error.message
        # A worker may have trials that it does not train yet.
        under_way = sum(trial.state is TrialState.RUNNING for trial in await system.trials(run))
        assert under_way > 0
        opened.set()
        await settled(system, run)
        now = await system.run(run)
    assert now.error is not None
    assert f"tokens {10 * (1 + under_way)} of 10" in now.error.message
    assert now.progress.trials_done == 1 + under_way


async def test_the_m_step_waits_for_budget_too(system: System) -> None:
    each = {"rounds": 1, "held_out": {"samples": 0}, "passage_only": False}
    selection = {"must_beat_passage_only": False, "must_gain": False}
    system.services.text = lambda context, index, seed: f"good {index}"
    async with system.working():
        run = await system.until(await system.create(**each, selection=selection, budget={"tokens": 60}))
        assert run.state is RunState.PAUSED  # six trials took it all
        assert system.services.calls["policy"] == 0
        assert not any(isinstance(e.kind, StageStarted) and e.kind.stage == "M-step" for e in await system.events(run))
        await system.database.write(runs.resume, change(run.name, ""), Budget(tokens=61))
        assert (await system.until(run)).state is RunState.PAUSED  # the M-step's ten count as well
        assert system.services.calls["policy"] == 1
        await system.database.write(runs.resume, change(run.name, ""), Budget(tokens=71))
        assert (await system.until(run)).state is RunState.SUCCEEDED


async def test_time_under_way_is_what_drivers_counted_and_pauses_are_free(system: System) -> None:
    gate(system, "train")
    async with system.working(lease=0.1):
        run = await system.until(await system.create(budget={"wall_seconds": 0.2}))
        assert run.state is RunState.PAUSED
        assert run.error is not None
        assert "wall_seconds 0." in run.error.message
        assert "of 0.2" in run.error.message


async def test_a_driver_that_stood_still_counts_a_lease_at_most(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    real = budgets.tick

    def tick(connection: Any, lease: Any, seconds: float, **options: Any) -> None:
        counted.append(seconds)
        real(connection, lease, seconds, **options)

    monkeypatch.setattr(budgets, "tick", tick)
    jump = iter([0.0, 10_000.0, *[20_000.0] * 1000])
    monkeypatch.setattr("controller.run.driver.steady", lambda: next(jump))
    gate(system, "train")
    async with system.working(lease=0.1):
        await system.create()
        await until(lambda: len(counted) >= 2)
    assert max(counted) <= 0.1


# --- trying again -----------------------------------------------------------------------------------------------------
def breaks(system: System, which: Callable[[str], bool]) -> Callable[[], Awaitable[None]]:
    """Trainings of such texts fail until the returned function is called."""
    mended = asyncio.Event()

    async def before(call: str, what: str) -> None:
        if call == "train" and which(what) and not mended.is_set():
            raise NonFiniteLoss("loss became NaN")

    async def mend() -> None:
        mended.set()

    system.services.before = before
    return mend


async def test_failed_trials_of_a_run_that_had_failed_are_tried_again(system: System) -> None:
    mend = breaks(system, lambda what: True)
    async with system.working():
        run = await system.until(await system.create())
        assert run.state is RunState.FAILED
        await mend()
        failed = [t.name for t in await system.trials(run) if t.state is TrialState.FAILED]
        again, count = await system.database.write(runs.retry, change(run.name, "retry-1"), [])
        assert again.state is RunState.QUEUED
        assert count >= len([name for name in failed if "passage" not in name]) > 0
        assert (await system.database.write(runs.retry, change(run.name, "retry-1"), []))[1] == 0
        ended = await system.until(run)
        calm = await system.until(await system.create(request_id="calm"))
    assert ended.state is RunState.SUCCEEDED
    assert await outcome(system, ended) == await outcome(system, calm)


async def test_a_trial_of_a_run_under_way_is_tried_again_by_name(system: System) -> None:
    mend = breaks(system, lambda what: "of c0" in what)
    slow = asyncio.Event()
    inner = system.services.before
    assert inner is not None

    async def before(call: str, what: str) -> None:
        await inner(call, what)
        if call == "train" and "Fact" in what:
            await slow.wait()

    system.services.before = before
    async with system.working():
        run = await system.create(contexts_per_round=4, rounds=1, held_out={"samples": 0})
        async with asyncio.timeout(30):
            while not (failed := [t for t in await system.trials(run) if t.state is TrialState.FAILED]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await mend()
        one = failed[0].name
        with pytest.raises(UnknownTrial):
            await system.database.write(runs.retry, change(run.name, ""), ["runs/none/rounds/0/trials/x"])
        again, count = await system.database.write(runs.retry, change(run.name, ""), [one])
        assert (again.state, count) == (RunState.RUNNING, 1)
        slow.set()
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    states = {trial.name: trial.state for trial in await system.trials(run)}
    assert states[one] is TrialState.SUCCEEDED
    assert ended.progress.trials_done == ended.progress.trials_total == len(states)


async def test_what_taught_its_policy_already_is_not_tried_again(system: System) -> None:
    breaks(system, lambda what: "of c0" in what)
    async with system.working():
        run = await system.until(await system.create(contexts_per_round=4, rounds=1, held_out={"samples": 0}))
    assert run.state is RunState.SUCCEEDED
    assert TrialState.FAILED in {trial.state for trial in await system.trials(run)}
    with pytest.raises(RunNotResumable, match="can still count"):
        await system.database.write(runs.retry, change(run.name, ""), [])


async def test_a_retried_trial_counts_its_spending_once(system: System) -> None:
    mend = breaks(system, lambda what: True)
    async with system.working():
        run = await system.until(await system.create(rounds=1))
        await mend()
        await system.database.write(runs.retry, change(run.name, ""), [])
        await system.until(run)
    spent = await system.database.read(
        lambda c: c.execute(budgets.select(runs.runs.c.spent_tokens).where(runs.runs.c.run_id == run_id(run))).scalar()
    )
    trained = sum(trial.usage.tokens for trial in await system.trials(run))
    m_step = sum(policy.usage.tokens for policy in await system.policies(run))
    assert spent == trained + m_step > 0
