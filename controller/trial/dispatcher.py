"""What a worker takes next, of all the runs whose trials may start, and what it leaves in the queue.

Every run has a stream of its own, so a run that is paused or out of budget waits where it is and costs no worker
anything. Which streams are open the record says; whose turn it is, `FairShare`.
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
"""How old the list of open streams may be: so long a paused run's trials may still start."""


class Dispatcher:
    """The streams as one worker takes from them."""

    def __init__(self, database: Database, queue: Queue, lease_seconds: float) -> None:
        self._database = database
        self._queue = queue
        self._lease_seconds = lease_seconds
        self._fair = FairShare()
        self._streams: dict[str, RunStream] = {}
        self._looked = self._looked_for_idle = -float("inf")
        self._charged: dict[str, tuple[RunStream, float, float]] = {}

    async def next(self, free: int) -> list[Delivery]:
        """At most `free` deliveries (one more of each stream where all were empty until now), waiting a moment for the
        first. What a dead worker left, looked for twice a lease, comes before what is new. Raises Unavailable."""
        streams = await self._open_streams()
        found = await self._left_behind(list(self._streams), free) or await self._new(streams, free)
        if not found:
            found = await self._queue.wait(list(self._streams), seconds=min(_STREAMS_SECONDS, self._lease_seconds / 4))
            for delivery in found:
                self._took(delivery.stream, asked=1, got=1)
        for delivery in found:
            stream = self._streams[delivery.stream]
            self._charged[delivery.key] = (stream, self._fair.charge(stream), time.monotonic())
        return found

    def finished(self, delivery: Delivery) -> None:
        """The delivery's slot is free again."""
        if charged := self._charged.pop(delivery.key, None):
            stream, charge, began = charged
            self._fair.finished(stream, charged=charge, seconds=time.monotonic() - began)

    async def depth(self) -> Depth:
        """How full the open streams are. Raises Unavailable."""
        return await self._queue.depth(list(self._streams))

    async def _open_streams(self) -> list[RunStream]:
        """Those of a higher priority first."""
        if time.monotonic() - self._looked > _STREAMS_SECONDS:
            found = [*await self._database.read(runs.streams), RERUNS]
            self._streams = {stream.run_id: stream for stream in sorted(found, key=lambda stream: -stream.priority)}
            self._fair.keep(found)
            self._looked = time.monotonic()
        return list(self._streams.values())

    async def _left_behind(self, streams: list[str], free: int) -> list[Delivery]:
        if time.monotonic() - self._looked_for_idle < self._lease_seconds / 2:
            return []
        found = await self._queue.take_idle(streams, free, idle_seconds=self._lease_seconds)
        if len(found) < free:  # else there may be more, and trials behind those that had ended
            self._looked_for_idle = time.monotonic()
        for delivery in found:
            self._took(delivery.stream, asked=1, got=1)
        return found

    async def _new(self, streams: list[RunStream], free: int) -> list[Delivery]:
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
