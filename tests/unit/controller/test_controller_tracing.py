"""A run is one trace: from the call that made it, through the queue, to every stage; tries that came to nothing are
linked, and so is the call that took a run up again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controller.db import runs
from sealkit.observability import tracing
from sealkit.observability.start import TracingSettings, start_tracing
from sealkit.resources import RunState, TrialState
from tests.otlp import Receiver, receiving
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System


@contextmanager
def traced(receiver: Receiver) -> Iterator[None]:
    """Tracing is on in the block; all has come after it."""
    stop = start_tracing("test", TracingSettings(endpoint=receiver.url))
    try:
        yield
    finally:
        stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


async def test_a_run_is_one_tree(system: System, receiver: Receiver) -> None:
    with traced(receiver):
        with tracing.span("CreateRun"):
            run = await system.create()
        async with system.working():
            await system.until(run)
    trials = await system.trials(run)
    told = {span.attributes["seal.trial"]: span for span in receiver.named("trial")}
    assert told.keys() == {trial.name for trial in trials}
    assert {span.trace for span in receiver.spans} == {receiver.one("CreateRun").trace}
    assert all(receiver.above(span) == ["put trials", "drive", "CreateRun"] for span in told.values())
    for trial in trials:
        stages = {s.name for s in receiver.spans if s.parent == told[trial.name].id}
        assert stages == set(trial.stage_seconds)
        assert told[trial.name].attributes["seal.state"] == trial.state.value
        assert told[trial.name].links == ()
    assert {tuple(receiver.above(span)) for span in receiver.named("M-step")} == {("drive", "CreateRun")}
    assert not any(b"Fact number" in body or b"Rewrite" in body for body in receiver.bodies)


async def test_a_trial_that_was_given_back_is_linked_to_its_first_try(system: System, receiver: Receiver) -> None:
    waiting, go = asyncio.Event(), asyncio.Event()

    async def hold(call: str, what: str) -> None:
        if call == "train":
            waiting.set()
            await go.wait()

    system.services.before = hold
    with traced(receiver):
        with tracing.span("CreateRun"):
            run = await system.create()
        async with system.working(concurrency=1):
            await asyncio.wait_for(waiting.wait(), 20)
        go.set()
        async with system.working():
            await system.until(run)
    tries = {}
    for span in sorted(receiver.named("trial"), key=lambda span: "seal.state" in span.attributes):
        tries.setdefault(span.attributes["seal.trial"], []).append(span)
    ((first, second),) = [found for found in tries.values() if len(found) > 1]
    assert first.attributes["seal.cancelled"]
    assert (second.trace, second.parent, second.links) == (first.trace, first.parent, (first.id,))


async def test_a_run_that_is_taken_up_again_goes_on_in_its_trace_with_a_link(
    system: System, receiver: Receiver
) -> None:
    with traced(receiver):
        with tracing.span("CreateRun"):
            run = await system.create()
        with tracing.span("CancelRun"):
            await system.database.write(runs.cancel, change(run.name))
        with tracing.span("ResumeRun"):
            await system.database.write(runs.resume, change(run.name))
        async with system.working():
            assert (await system.until(run)).state is RunState.SUCCEEDED
    drive = receiver.one("drive")
    assert receiver.above(drive) == ["CreateRun"]
    assert drive.links == (receiver.one("ResumeRun").id,)


async def test_a_run_that_nobody_traced_leaves_no_trace(system: System) -> None:
    run = await system.create()
    async with system.working():
        await system.until(run)
    plan = await system.database.read(runs.plan, run.name.removeprefix("runs/"))
    assert plan.trace == ""
    assert {trial.state for trial in await system.trials(run)} <= {TrialState.SUCCEEDED, TrialState.REJECTED}
