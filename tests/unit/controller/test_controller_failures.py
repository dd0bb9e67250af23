"""A run in which nothing that was trained worked does not succeed, and the wall clock decides nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from sealkit.errors import NonFiniteLoss
from sealkit.queue import Delivery, Queue
from sealkit.resources import RunState, TrialState
from sealkit.types import Outcome
from tests.unit.controller.controller_fakes import records
from tests.unit.controller.controller_system import System


def rejected_but(system: System, *, good: int) -> None:
    """Of each context's self-edits those from index `good` on are not usable."""
    system.services.text = lambda context, index, seed: "bad" if index >= good else f"good edit of {context}"


def failing(system: System, *contexts: str) -> None:
    """Every training fails whose text names one of these contexts; of all without any."""

    async def before(call: str, what: str) -> None:
        if call == "train" and (not contexts or any(context in what for context in contexts)):
            raise NonFiniteLoss("the loss is nan")

    system.services.before = before


@pytest.mark.parametrize("good", [0, 1, 3], ids=["all rejected", "some rejected", "none rejected"])
@pytest.mark.parametrize("task", ["train", "adapt"])
async def test_a_run_whose_trained_trials_all_failed_does_not_succeed_and_can_be_resumed(
    system: System, good: int, task: str
) -> None:
    rejected_but(system, good=good)
    failing(system)
    adapt: dict[str, Any] = {"task": "adapt", "held_out": {"samples": 0}, "rounds": 1} if task == "adapt" else {}
    async with system.working():
        run = await system.until(await system.create(**adapt))
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert "NON_FINITE_LOSS: the loss is nan" in run.error.message
        assert ("self-edit was not usable" in run.error.message) == (good < 3)
        states = {trial.state for trial in await system.trials(run)}
        assert TrialState.FAILED in states, "they are there to be retried"


async def test_a_run_whose_self_edits_were_all_rejected_succeeds_if_the_passage_alone_trains(system: System) -> None:
    rejected_but(system, good=0)
    async with system.working():
        assert (await system.until(await system.create(rounds=1))).state is RunState.SUCCEEDED


async def test_one_context_of_an_adaptation_may_fail_once_others_worked(system: System) -> None:
    rejected_but(system, good=1)
    failing(system, "c1", "number 1")
    async with system.working():
        adapt = {"task": "adapt", "held_out": {"samples": 0}, "rounds": 1}
        run = await system.until(await system.create(dataset=records(train=3, held_out=0), **adapt))
    assert run.state is RunState.SUCCEEDED


async def test_policies_are_in_the_order_of_their_versions_whatever_the_clock_said(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = count()
    system.services.outcome = lambda subject, _: Outcome.CORRECT if subject else Outcome.INCORRECT  # all are kept
    for module in ("controller.db.policies", "controller.run.steps"):
        monkeypatch.setattr(f"{module}.now", lambda: datetime(2026, 1, 31 - next(back), tzinfo=UTC))
    async with system.working():
        run = await system.until(await system.create(selection={"must_beat_passage_only": False}))
    found = await system.policies(run)
    assert len(found) > 1
    assert [policy.version for policy in found] == list(range(len(found)))
    assert found[0].create_time > found[-1].create_time
    assert run.active_seconds > 0, "counted to its end, by the monotonic clock"


async def test_a_step_of_redis_clock_takes_no_trial_from_a_living_worker(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step ahead every message looks idle for hours."""
    idle = Queue.take_idle

    async def after_the_step(self: Queue, streams: Any, count: int, *, idle_seconds: float) -> list[Delivery]:
        found = await idle(self, streams, count, idle_seconds=0)
        claimed.extend(found)
        return found

    async def before(call: str, _: str) -> None:
        if call == "train":
            await asyncio.sleep(0.05)

    claimed: list[Delivery] = []
    system.services.before = before
    async with system.working(concurrency=2), system.working(concurrency=2):
        monkeypatch.setattr(Queue, "take_idle", after_the_step)
        run = await system.until(await system.create(rounds=1))
    assert run.state is RunState.SUCCEEDED
    assert claimed, "each took messages of the other"
    assert {(trial.attempts, trial.late_results) for trial in await system.trials(run)} == {(1, 0)}
