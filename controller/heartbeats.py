"""Heartbeats of workers. A worker increments its counter in the database. A worker whose counter has not changed for a
whole lease, measured by the observer's monotonic clock, is dead. Clocks of two machines are never compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from controller.db import leases
from controller.db.database import Database
from sealkit.errors import Unavailable

log = structlog.get_logger(__name__)

_BEATS_A_LEASE = 4
_DELETE_AFTER = 10
"""Number of leases after which a dead worker's row is deleted."""


class Heartbeats:
    """Sends this worker's heartbeats and watches those of the others."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        lease_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker_id = worker_id
        self.lease_seconds = lease_seconds
        self._database = database
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    async def enter(self) -> None:
        """Sends the first heartbeat; nothing may be taken before it. Raises Unavailable."""
        await self._database.write(leases.beat, self.worker_id)

    async def keep(self) -> None:
        """Sends heartbeats; never returns."""
        while True:
            await asyncio.sleep(self.lease_seconds / _BEATS_A_LEASE)
            try:
                await self._database.write(leases.beat, self.worker_id)
                await self.dead()
            except Unavailable as error:
                log.warning("heartbeat not sent", message=error.message)

    async def dead(self) -> set[str]:
        """The workers without a heartbeat for a whole lease."""
        beats = await self._database.read(leases.beats)
        now = self._clock()
        self._seen = {w: self._seen[w] if self._seen.get(w, (None,))[0] == b else (b, now) for w, b in beats.items()}
        still = {w: now - since for w, (_, since) in self._seen.items() if w != self.worker_id}
        forgotten = [worker for worker, seconds in still.items() if seconds > _DELETE_AFTER * self.lease_seconds]
        if forgotten:
            await self._database.write(leases.leave, forgotten)
        return {worker for worker, seconds in still.items() if seconds > self.lease_seconds}

    async def any_alive(self) -> bool:
        """Whether a worker sends heartbeats; this one does not count."""
        signed_on = await self._database.read(leases.beats)
        return bool(signed_on.keys() - {self.worker_id} - await self.dead())

    async def leave(self) -> None:
        """Signs this worker off, so that others take over its work at once."""
        await self._database.write(leases.leave, [self.worker_id])
