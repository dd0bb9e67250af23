"""Decides which trials a worker takes next, of all the runs whose trials may start.

Every run has its own stream, so workers do not read that of a paused run. The database says which streams are open, and
`FairShare` which is next.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import groupby

from controller.db import runs
from controller.db.database import Database
from controller.db.runs import RunStream
from controller.trial.fair_share import FairShare
from sealkit.queue import Delivery, Depth, Queue

RERUNS = RunStream("+reruns", priority=0, share=1.0)
"""The stream of reruns: their runs may have ended long ago. No run has such an id."""
_STREAMS_SECONDS = 0.25
"""Maximum age of the list of open streams; trials of a paused run may still start for this long."""


class Dispatcher:
    """Takes trials from the streams, for one worker."""

    def __init__(self, database: Database, queue: Queue, lease_seconds: float) -> None:
        self._database = database
        self._queue = queue
        self._lease_seconds = lease_seconds
        self._fair = FairShare()
        self._streams: dict[str, RunStream] = {}
        self._refreshed = self._claimed_idle = -float("inf")
        self._charged: dict[str, tuple[RunStream, float, float]] = {}

    @property
    def runs(self) -> list[str]:
        """Ids of the runs whose trials this worker may take."""
        return [run_id for run_id in self._streams if run_id != RERUNS.run_id]

    async def next(self, free: int) -> list[Delivery]:
        """Up to `free` deliveries (up to one of each stream, if all were empty), after a short wait for the first.
        Twice a lease, messages of dead workers are looked for, and they come before new ones. Raises Unavailable."""
        streams = await self._open_streams()
        found = await self._take_idle(list(self._streams), free) or await self._take_new(streams, free)
        if not found:
            found = await self._queue.wait(list(self._streams), seconds=min(_STREAMS_SECONDS, self._lease_seconds / 4))
            for delivery in found:
                self._took(delivery.stream, asked=1, got=1)
        for delivery in found:
            stream = self._streams[delivery.stream]
            self._charged[delivery.key] = (stream, self._fair.charge(stream), time.monotonic())
        return found

    def finished(self, delivery: Delivery) -> None:
        """Call this when the delivery's slot is free again."""
        if charged := self._charged.pop(delivery.key, None):
            stream, charge, began = charged
            self._fair.finished(stream, charged=charge, seconds=time.monotonic() - began)

    async def depth(self) -> Depth:
        """The depth of the open streams. Raises Unavailable."""
        return await self._queue.depth(list(self._streams))

    async def _open_streams(self) -> list[RunStream]:
        """The open streams, those of a higher priority first."""
        if time.monotonic() - self._refreshed > _STREAMS_SECONDS:
            found = [*await self._database.read(runs.streams), RERUNS]
            self._streams = {stream.run_id: stream for stream in sorted(found, key=lambda stream: -stream.priority)}
            self._fair.keep(found)
            self._refreshed = time.monotonic()
        return list(self._streams.values())

    async def _take_idle(self, streams: list[str], free: int) -> list[Delivery]:
        if time.monotonic() - self._claimed_idle < self._lease_seconds / 2:
            return []
        found = await self._queue.take_idle(streams, free, idle_seconds=self._lease_seconds)
        if len(found) < free:  # otherwise there may be more
            self._claimed_idle = time.monotonic()
        for delivery in found:
            self._took(delivery.stream, asked=1, got=1)
        return found

    async def _take_new(self, streams: list[RunStream], free: int) -> list[Delivery]:
        found: list[Delivery] = []
        for _, equals in groupby(streams, key=lambda stream: stream.priority):
            waiting = list(equals)
            while waiting and len(found) < free:
                asked = self._fair.plan(waiting, free - len(found))
                taken = await self._queue.take(asked)
                found += taken
                got = Counter(delivery.stream for delivery in taken)
                for run_id, count in asked.items():
                    self._took(run_id, asked=count, got=got[run_id])
                waiting = [stream for stream in waiting if got[stream.run_id] >= asked.get(stream.run_id, 0)]
        return found

    def _took(self, run_id: str, *, asked: int, got: int) -> None:
        self._fair.took(self._streams[run_id], asked=asked, got=got)
