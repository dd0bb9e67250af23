"""A whole controller in one process over SQLite, a fake Redis and the fake services."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from controller.accept import accept
from controller.db import budgets, events, leases, policies, runs, trials
from controller.db.access import FULL_ACCESS
from controller.db.database import Database
from controller.db.notifier import Notifier
from controller.heartbeats import Heartbeats
from controller.retry import run_with_background
from controller.run.driver import Driver
from controller.services import Services
from controller.trial.worker import Worker
from controller.waits import Waits
from sealkit.queue import Delivery, Queue
from sealkit.resources import Event, PolicyVersion, Run, Trial
from tests.records import new_record
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, FakeServices, records, tiny_config

LEASE = 0.3
_ids = itertools.count()


class Killed(Exception):
    """What a killed process's calls end with: the record never hears of it again."""


class MortalDatabase(Database):
    """Dies after so many writes, as the process around it would: nothing is written or read any more."""

    def __init__(self, url: str, *, writes: int | None = None) -> None:
        super().__init__(url)
        self.writes_left = writes
        self.died = asyncio.Event()

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return await super().read(*args, **kwargs)

    async def write(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        if self.writes_left is not None and args[0] not in (leases.beat, budgets.tick):
            self.writes_left -= 1
        answer = await super().write(*args, **kwargs)
        self._check()
        return answer

    def _check(self) -> None:
        if self.writes_left is not None and self.writes_left <= 0:
            self.died.set()
            raise Killed


class NotifiedQueue(Queue):
    """fakeredis polls in a busy loop while it blocks; this waits for the next `put` of any queue of the system."""

    def __init__(self, *args: Any, puts: Notifier, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._puts = puts

    async def put(self, *args: Any, **kwargs: Any) -> None:
        await super().put(*args, **kwargs)
        self._puts.notify()

    async def wait(self, streams: Sequence[str], *, seconds: float) -> list[Delivery]:
        heard = self._puts.subscribe()
        found = await super().wait(streams, seconds=0.001)
        if not found:
            await self._puts.wait(heard, seconds=seconds)
        return found


class System:
    """`working` is one worker process; `database` is the observer's own view of the record."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/record.db"
        self.database = new_record(folder)
        self.redis = FakeServer()
        self._puts = Notifier()
        self.services = FakeServices()
        self.plugins = (DOMAIN,)

    def queue(self, consumer: str) -> Queue:
        client = FakeRedis(server=self.redis, decode_responses=True)
        return NotifiedQueue("redis://fake", consumer=consumer, client=client, puts=self._puts)

    @asynccontextmanager
    async def working(
        self, *, writes: int | None = None, concurrency: int = 4, max_deliveries: int = 100, lease: float = LEASE
    ) -> AsyncIterator[MortalDatabase]:
        name = f"worker-{next(_ids)}"
        database, queue = MortalDatabase(self.url, writes=writes), self.queue(name)
        services = Services(self.services, self.services, self.services)
        heartbeats = Heartbeats(database, name, lease)
        parts: dict[str, Any] = {
            "database": database, "queue": queue, "services": services, "heartbeats": heartbeats,
            "plugins": self.plugins, "waits": Waits(database),
        }  # fmt: skip
        worker = Worker(**parts, concurrency=concurrency, max_deliveries=max_deliveries)
        driver = Driver(**parts)
        await Database.write(database, leases.beat, name)
        task = asyncio.create_task(run_with_background(heartbeats.keep(), worker.run(), driver.run()))
        try:
            yield database
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await queue.close()
            await database.close()

    async def create(
        self, *, request_id: str = "r", dataset: list[dict[str, Any]] | None = None, **changes: Any
    ) -> Run:
        new, contexts = accept(
            request_id=request_id,
            display_name="",
            config=tiny_config(**changes),
            records=records() if dataset is None else dataset,
            retention=RETENTION,
            plugins=self.plugins,
        )
        return await self.database.write(runs.create, change(f"runs/{new.run_id}", request_id), new, contexts)

    async def run(self, run: Run) -> Run:
        return await self.database.read(runs.get, FULL_ACCESS, run.name.removeprefix("runs/"))

    async def until(self, run: Run, done: Callable[[Run], bool] = lambda run: run.state.terminal) -> Run:
        """The run as soon as it is `done`."""
        async with asyncio.timeout(30):
            while True:
                heard = self.database.notifier.subscribe()
                if done(now := await self.run(run)):
                    return now
                await self.database.notifier.wait(heard, seconds=0.02)

    async def killed_after(self, run: Run, writes: Sequence[int]) -> int:
        """Lets one worker after the other work on the run, each until it dies at so many writes or the run has ended;
        returns how many died."""
        deaths = 0
        for left in writes:
            async with self.working(writes=left) as database:
                dying = asyncio.create_task(database.died.wait())
                ending = asyncio.create_task(self.until(run))
                await asyncio.wait([dying, ending], return_when=asyncio.FIRST_COMPLETED)
                deaths += dying.done()
                dying.cancel()
                ending.cancel()
        return deaths

    async def trials(self, run: Run) -> list[Trial]:
        return await self.database.read(trials.of_run, run.name.removeprefix("runs/"))

    async def policies(self, run: Run) -> list[PolicyVersion]:
        return await self.database.read(policies.of_run, run.name.removeprefix("runs/"))

    async def events(self, run: Run, cursor: str = "") -> list[Event]:
        found, _ = await self.database.read(
            events.after, FULL_ACCESS, run.name.removeprefix("runs/"), cursor, limit=100_000
        )
        return found


def science(found: list[Trial]) -> list[dict[str, Any]]:
    """What of trials must be the same however a run went: all but times, attempts, late results
    and what retries took."""
    taken = {"create_time", "end_time", "stage_seconds", "stage_usage", "usage", "attempts", "late_results"}
    return [trial.model_dump(exclude=taken) for trial in found]


async def until(true: Callable[[], bool]) -> None:
    """Waits for what nobody announces."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
