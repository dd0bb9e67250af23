"""Whoever watches a run hears what it waits for, once, and that it goes on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from fakeredis.aioredis import FakeRedis
from redis.exceptions import ResponseError

from controller.db import runs
from controller.db.database import Database
from controller.heartbeats import Heartbeats
from controller.retry import retry_until_available
from controller.waits import Waits, report_missing_workers
from sealkit.errors import QueueFull, SealError, Unavailable
from sealkit.queue import Queue
from sealkit.resources import Event, RunState, RunWaiting
from tests.unit.controller.controller_system import NotifiedQueue, System

MISCONF = "MISCONF Errors writing to the AOF file: No space left on device"


class Told:
    """A database that only remembers what was told; `away` refuses everything."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.away = False

    async def write(self, work: Any, run_id: str, kind: RunWaiting) -> None:
        if self.away:
            raise Unavailable("the database is away too")
        assert work is runs.waits
        self.events.append((run_id, kind.doing, kind.error.message if kind.error else "goes on"))


@pytest.fixture
def told() -> Told:
    return Told()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_long_wait_is_told_once_and_its_end_too(told: Told) -> None:
    clock = Clock()
    waits = Waits(cast("Database", told), clock=clock)
    away = Unavailable("trainer is away")
    for clock.now in (0.0, 4.0, 6.0, 7.0, 20.0):
        await waits.failed("r", "train", away)
    await waits.failed("other", "train", away)
    assert told.events == [("r", "train", "trainer is away")]
    clock.now = 70.0
    await waits.failed("r", "train", Unavailable("trainer has no disk"))
    await waits.answered("r", "train")
    await waits.answered("other", "train")
    assert told.events[1:] == [("r", "train", "trainer has no disk"), ("r", "train", "goes on")]


async def test_what_is_short_busy_or_given_up_is_not_told_and_a_full_disk_delays_it(told: Told) -> None:
    clock = Clock()
    waits = Waits(cast("Database", told), clock=clock)
    for clock.now in (0.0, 1.0):
        await waits.failed("r", "sample", Unavailable("blip"))
    await waits.answered("r", "sample")
    for clock.now in (10.0, 100.0):
        await waits.failed("r", "train", QueueFull("busy"))
    await waits.failed("r", "evaluate", Unavailable("gone"))
    waits.given_up("r", "evaluate")
    clock.now = 200.0
    await waits.failed("r", "evaluate", Unavailable("gone"))
    assert told.events == []
    told.away, clock.now = True, 210.0
    await waits.failed("r", "evaluate", Unavailable("gone"))
    told.away = False
    await waits.failed("r", "evaluate", Unavailable("gone"))
    assert told.events == [("r", "evaluate", "gone")]


async def test_every_retry_tells_the_run_that_it_belongs_to(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.waits._REPORT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("controller.retry._FIRST_SECONDS", 0.0)
    errors: list[SealError] = [Unavailable("away"), Unavailable("away")]

    async def call() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    with Waits(cast("Database", told)).of("r"):
        assert await retry_until_available(call, doing="M-step") == "answer"
    assert told.events == [("r", "M-step", "away"), ("r", "M-step", "goes on")]
    errors.append(Unavailable("away"))
    assert await retry_until_available(call, doing="outside of a run") == "answer"


class Refusing(FakeRedis):
    """Answers, and refuses writes while `refuses` is set, as Redis does after a full disk."""

    refuses = False

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        if Refusing.refuses and words[0] in ("SADD", "XADD", "XREADGROUP", "XGROUP CREATE", "XCLAIM", "XACK", "XDEL"):
            raise ResponseError(MISCONF)
        return await super().execute_command(*words, **options)

    def pipeline(self, *_: Any, **__: Any) -> Any:
        if Refusing.refuses:
            raise ResponseError(MISCONF)
        return super().pipeline(*_, **__)


async def waited(system: System, run: Any) -> list[RunWaiting]:
    found: list[Event] = await system.events(run)
    return [event.kind for event in found if isinstance(event.kind, RunWaiting)]


async def test_a_redis_that_refuses_writes_is_told_and_the_run_goes_on_once_it_takes_them(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.waits._REPORT_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(Refusing, "refuses", True)

    def queue(consumer: str) -> Queue:
        client = Refusing(server=system.redis, decode_responses=True)
        return NotifiedQueue("redis://fake", consumer=consumer, client=client, puts=system._puts)

    monkeypatch.setattr(system, "queue", queue)
    run = await system.create(rounds=1)
    async with system.working():
        heard: list[RunWaiting] = []
        while {kind.doing for kind in heard} != {"queueing trials", "taking trials"}:
            seen = system.database.notifier.subscribe()
            heard = await waited(system, run)
            await system.database.notifier.wait(seen, seconds=0.02)
        assert all(kind.error and MISCONF in kind.error.message for kind in heard)
        assert all(kind.error and "make room on its disk" in kind.error.message for kind in heard)
        Refusing.refuses = False
        assert (await system.until(run)).state is RunState.SUCCEEDED
    last = {kind.doing: kind for kind in await waited(system, run)}
    assert all(kind.error is None for kind in last.values()), "and that it goes on"


async def test_a_run_that_no_worker_drives_is_told(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an API without a worker in its process tells it."""
    monkeypatch.setattr("controller.waits._REPORT_AFTER_SECONDS", 0.0)
    heartbeats = Heartbeats(system.database, "api", 0.2)
    looking = asyncio.create_task(
        report_missing_workers(system.database, heartbeats, Waits(cast("Database", system.database)))
    )
    run = await system.create(rounds=1)
    heard = await _heard(system, run, 1)
    assert heard[0].error is not None
    assert "no worker is running" in heard[0].error.message
    async with system.working(lease=0.2):
        assert (await system.until(run)).state is RunState.SUCCEEDED
    assert (await waited(system, run))[-1].error is None
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def _heard(system: System, run: Any, count: int) -> list[RunWaiting]:
    """What was told, once it is so much."""
    while True:
        seen = system.database.notifier.subscribe()
        if len(found := await waited(system, run)) >= count:
            return found
        await system.database.notifier.wait(seen, seconds=0.02)


async def test_a_service_that_is_away_is_told(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.waits._REPORT_AFTER_SECONDS", 0.05)
    away = True

    async def before(call: str, _: str) -> None:
        if away and call == "train":
            raise Unavailable("trainer at 127.0.0.1:1 does not answer")

    system.services.before = before
    run = await system.create(rounds=1)
    async with system.working():
        told = await _heard(system, run, 1)
        assert (told[0].doing, told[0].error and told[0].error.reason) == ("train", "UNAVAILABLE")
        away = False
        assert (await system.until(run)).state is RunState.SUCCEEDED
    assert not (await waited(system, run))[-1].error
