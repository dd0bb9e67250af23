"""Whose turn it is: priorities, shares, and how much a worker keeps in flight."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.db.runs import RunStream
from controller.db.trials import of_run as trials_of
from controller.trial.concurrency_limit import ConcurrencyLimit
from controller.trial.fair_share import FairShare
from sealkit.resources import Run, RunState, TrialFinished, TrialState
from tests.unit.controller.controller_fakes import records
from tests.unit.controller.controller_system import System

AT_ONCE = {
    "rounds": 1,
    "held_out": {"samples": 0},
    "passage_only": False,
    "selection": {"must_beat_passage_only": False},
}
"""A run whose trials can all start as soon as it does."""


def served(streams: list[RunStream], seconds: dict[str, float], *, slots: int, time: float) -> Counter[str]:
    """Slot-seconds that each run had after `time` in which all had trials waiting, with `slots` slots."""
    fair, clock, used = FairShare(), 0.0, Counter[str]()
    flying: list[tuple[float, RunStream, float]] = []
    by_id = {stream.run_id: stream for stream in streams}
    while clock < time:
        for run_id, count in fair.plan(streams, slots - len(flying)).items():
            stream = by_id[run_id]
            fair.took(stream, asked=count, got=count)
            flying += [(clock + seconds[run_id], stream, fair.charge(stream))] * count
        flying.sort(key=lambda flight: flight[0])
        clock, stream, charged = flying.pop(0)
        used[stream.run_id] += seconds[stream.run_id]
        fair.finished(stream, charged=charged, seconds=seconds[stream.run_id])
    return used


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_shares_hold_for_time_whatever_a_trial_takes(slots: int) -> None:
    streams = [RunStream("a", 0, 1.0), RunStream("b", 0, 3.0), RunStream("c", 0, 1.0)]
    used = served(streams, {"a": 1.0, "b": 1.0, "c": 9.0}, slots=slots, time=2000)
    total = used.total()
    assert used["a"] / total == pytest.approx(0.2, abs=0.03)
    assert used["b"] / total == pytest.approx(0.6, abs=0.03)
    assert used["c"] / total == pytest.approx(0.2, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=4), st.integers(1, 8))
def test_nobody_starves_and_the_same_history_gives_the_same_turns(shares: list[float], slots: int) -> None:
    streams = [RunStream(f"r{i}", 0, share) for i, share in enumerate(shares)]
    seconds = {stream.run_id: 1.0 for stream in streams}
    used = served(streams, seconds, slots=slots, time=150)
    assert set(used) == set(seconds)
    assert used == served(streams, seconds, slots=slots, time=150)


def test_a_run_that_comes_late_or_had_nothing_waiting_has_no_claim_on_the_past() -> None:
    fair, old, new = FairShare(), RunStream("old", 0, 1.0), RunStream("new", 0, 1.0)
    for _ in range(100):
        fair.took(old, asked=1, got=1)
    assert fair.plan([old, new], 10) == {"old": 5, "new": 5} or fair.plan([old, new], 10) == {"new": 6, "old": 4}
    fair.took(new, asked=5, got=1)  # no more waiting
    for _ in range(100):
        fair.took(old, asked=1, got=1)
    assert fair.plan([old, new], 10)["new"] <= 6


def test_trials_that_take_no_time_still_take_turns() -> None:
    streams = [RunStream("a", 0, 1.0), RunStream("b", 0, 1.0)]
    fair = FairShare()
    for _ in range(50):
        for stream in streams:
            fair.took(stream, asked=1, got=1)
            fair.finished(stream, charged=fair.charge(stream), seconds=0.0)
    assert fair.plan(streams, 10) == {"a": 5, "b": 5}


def test_a_worker_asks_for_less_where_services_are_full_and_for_more_as_trials_end() -> None:
    now = [0.0]
    limit = ConcurrencyLimit(16, clock=lambda: now[0])
    for _ in range(10):
        limit.full()  # one moment, one refusal
    assert limit.limit == 11
    for _ in range(30):
        now[0] += 2
        limit.full()
    assert limit.limit == 1
    for _ in range(400):
        limit.ended()
    assert limit.limit == 16


async def put_in_queue(system: System, counts: dict[str, int]) -> None:
    """Returns when so many trials of each run are queued and no worker runs, so that the order does not depend on which
    run was found first."""
    holding = asyncio.Event()

    async def hold(call: str, what: str) -> None:
        holding.set()
        await asyncio.Event().wait()

    system.services.before = hold
    async with system.working(concurrency=1), asyncio.timeout(30):
        await holding.wait()  # the worker takes no other trial, and gives this one back when it stops
        for run, count in counts.items():
            while len(await system.database.read(trials_of, run.removeprefix("runs/"))) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    system.services.before = None


async def finish_times(system: System, run: Run) -> list[datetime]:
    """When its trials ended."""
    return [event.time for event in await system.events(run) if isinstance(event.kind, TrialFinished)]


async def test_a_big_run_does_not_starve_a_small_one_and_a_higher_priority_goes_first(system: System) -> None:
    small = {**AT_ONCE, "contexts_per_round": 1, "editor": {"k": 2}}
    big = {**AT_ONCE, "contexts_per_round": 40, "editor": {"k": 5}}
    waiting = [
        await system.create(request_id="big", dataset=records(train=40, held_out=0), **big),
        await system.create(request_id="small", **small),
        await system.create(request_id="urgent", scheduling={"priority": 5}, **small),
    ]
    await put_in_queue(system, {run.name: count for run, count in zip(waiting, (200, 2, 2), strict=True)})
    async with system.working(concurrency=2):
        ended = [await system.until(run) for run in waiting[1:]]
    assert [run.state for run in ended] == [RunState.SUCCEEDED] * 2
    assert TrialState.QUEUED in {trial.state for trial in await system.trials(waiting[0])}
    big, small, urgent = [await finish_times(system, run) for run in waiting]
    assert sum(time < max(small) for time in big) < 20  # of 200
    assert sum(time < max(urgent) for time in big) < 5


async def test_equal_runs_end_their_trials_side_by_side(system: System) -> None:
    one = {**AT_ONCE, "contexts_per_round": 4}
    both = [await system.create(request_id=name, **one) for name in ("a", "b")]
    await put_in_queue(system, {run.name: 12 for run in both})
    async with system.working(concurrency=2):
        for run in both:
            await system.until(run)
    times = {run.name: await finish_times(system, run) for run in both}
    ended = sorted((time, name) for name, finished in times.items() for time in finished)
    first_half = Counter(name for _, name in ended[: len(ended) // 2])
    assert min(first_half[run.name] for run in both) >= len(ended) // 8
