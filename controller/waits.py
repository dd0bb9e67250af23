"""Reports to the watchers of a run what it waits for.

A wait is reported as an event once it has lasted some seconds, with its reason, and a second event reports that it is
over. Which run that is comes from the context of the task that waits (`Waits.of`), as in the logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from controller.db import runs
from controller.db.database import Database
from controller.heartbeats import Heartbeats
from sealkit.errors import QueueFull, SealError, Unavailable
from sealkit.faults import fault_of
from sealkit.resources import RunWaiting

log = structlog.get_logger(__name__)

_REPORT_AFTER_SECONDS = 5.0
_REPORT_AGAIN_SECONDS = 60.0
"""For another reason of the same wait."""


@dataclass(slots=True)
class _Wait:
    since: float
    reported: str = ""
    reported_at: float = 0.0


class Waits:
    """The waits of this process, by run and by what was tried. Several tasks that wait for the same are one wait.

    A full queue is not reported: it is busy with the trials of this run or of others.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._waits: dict[tuple[str, str], _Wait] = {}

    @contextmanager
    def of(self, run_id: str) -> Iterator[None]:
        """In this block and the tasks that it starts, waits of `retry_until_available` are reported as this run's."""
        token = _CURRENT.set((self, run_id))
        try:
            yield
        finally:
            _CURRENT.reset(token)

    async def failed(self, run_id: str, doing: str, error: SealError) -> None:
        """Another try failed."""
        if isinstance(error, QueueFull):
            return
        now = self._clock()
        wait = self._waits.setdefault((run_id, doing), _Wait(now))
        due = now - wait.since >= _REPORT_AFTER_SECONDS
        if wait.reported:
            due = wait.reported != error.message and now - wait.reported_at >= _REPORT_AGAIN_SECONDS
        if due and await self._report(run_id, RunWaiting(doing=doing, error=fault_of(error))):
            wait.reported, wait.reported_at = error.message, now

    async def answered(self, run_id: str, doing: str) -> None:
        """A try succeeded."""
        wait = self._waits.pop((run_id, doing), None)
        if wait is not None and wait.reported:
            await self._report(run_id, RunWaiting(doing=doing))

    def given_up(self, run_id: str, doing: str) -> None:
        """Nobody waits for it any longer."""
        self._waits.pop((run_id, doing), None)

    async def _report(self, run_id: str, kind: RunWaiting) -> bool:
        try:
            await self._database.write(runs.waits, run_id, kind)
        except Unavailable as error:
            log.warning("wait not reported", doing=kind.doing, message=error.message)
            return False
        return True


async def report_missing_workers(database: Database, heartbeats: Heartbeats, waits: Waits) -> None:
    """For an API without a worker: reports to every unfinished run that no worker runs; never returns."""
    doing = "looking for a worker"
    nobody = Unavailable("no worker is running; start one with `python -m controller worker`, or see its log")
    while True:
        await asyncio.sleep(heartbeats.lease_seconds / 4)
        try:
            alive = await heartbeats.any_alive()
            for run_id in await database.read(runs.unfinished):
                await (waits.answered(run_id, doing) if alive else waits.failed(run_id, doing, nobody))
        except Unavailable as error:
            log.warning("workers not checked", message=error.message)


_CURRENT: ContextVar[tuple[Waits, str] | None] = ContextVar("waits", default=None)


async def failed(doing: str, error: SealError) -> None:
    """`Waits.failed` of the current run, if there is one."""
    if current := _CURRENT.get():
        await current[0].failed(current[1], doing, error)


async def answered(doing: str) -> None:
    """`Waits.answered` of the current run, if there is one."""
    if current := _CURRENT.get():
        await current[0].answered(current[1], doing)


def given_up(doing: str) -> None:
    """`Waits.given_up` of the current run, if there is one."""
    if current := _CURRENT.get():
        current[0].given_up(current[1], doing)
