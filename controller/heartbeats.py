"""Which workers live. A worker's beat in the record goes up while it does; one whose beat stood still for a whole
lease, measured on the observer's own steady clock, is dead. No two machines' clocks are ever compared."""

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
_STRUCK_OFF_AFTER = 10
"""Leases after which a dead worker's row goes."""


class Heartbeats:
    """This worker's sign of life, and what it sees of the others."""

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
        """The first beat; nothing may be taken before it. Raises Unavailable."""
        await self._database.write(leases.beat, self.worker_id)

    async def keep(self) -> None:
        """Beats on; never returns."""
        while True:
            await asyncio.sleep(self.lease_seconds / _BEATS_A_LEASE)
            try:
                await self._database.write(leases.beat, self.worker_id)
                await self.dead()
            except Unavailable as error:
                log.warning("no sign of life", message=error.message)

    async def dead(self) -> set[str]:
        """The workers that stood still for a whole lease."""
        beats = await self._database.read(leases.beats)
        now = self._clock()
        self._seen = {w: self._seen[w] if self._seen.get(w, (None,))[0] == b else (b, now) for w, b in beats.items()}
        still = {w: now - since for w, (_, since) in self._seen.items() if w != self.worker_id}
        gone = [worker for worker, seconds in still.items() if seconds > _STRUCK_OFF_AFTER * self.lease_seconds]
        if gone:
            await self._database.write(leases.leave, gone)
        return {worker for worker, seconds in still.items() if seconds > self.lease_seconds}

    async def leave(self) -> None:
        """Says that this worker stops: others take what it had at once."""
        await self._database.write(leases.leave, [self.worker_id])
