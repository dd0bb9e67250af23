"""What a worker takes next, of all the runs whose trials may start, and what it leaves in the queue.

Every run has a lane of its own, so a run that is paused or out of budget waits where it is and costs no worker
anything. Which lanes are open the record says; whose turn it is, `FairShare`.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import groupby

from controller.fair import FairShare
from controller.record import runs
from controller.record.database import Database
from controller.record.runs import Lane
from sealkit.queue import Delivery, Depth, Queue

REPLAYS = Lane("+replays", priority=0, share=1.0)
"""The lane of replays: their runs may have ended long ago. No run has such an id."""
_LANES_SECONDS = 0.25
"""How old the list of open lanes may be: so long a paused run's trials may still start."""


class Intake:
    """The lanes as one worker takes from them."""

    def __init__(self, database: Database, queue: Queue, lease_seconds: float) -> None:
        self._database = database
        self._queue = queue
        self._lease_seconds = lease_seconds
        self._fair = FairShare()
        self._lanes: dict[str, Lane] = {}
        self._looked = self._looked_for_idle = -float("inf")
        self._charged: dict[str, tuple[Lane, float, float]] = {}

    async def next(self, free: int) -> list[Delivery]:
        """At most `free` deliveries (one more of each lane where all were empty until now), waiting a moment for the
        first. What a dead worker left, looked for twice a lease, comes before what is new. Raises Unavailable."""
        lanes = await self._open_lanes()
        found = await self._left_behind(list(self._lanes), free) or await self._new(lanes, free)
        if not found:
            found = await self._queue.wait(list(self._lanes), seconds=min(_LANES_SECONDS, self._lease_seconds / 4))
            for delivery in found:
                self._took(delivery.lane, asked=1, got=1)
        for delivery in found:
            lane = self._lanes[delivery.lane]
            self._charged[delivery.key] = (lane, self._fair.charge(lane), time.monotonic())
        return found

    def landed(self, delivery: Delivery) -> None:
        """The delivery's slot is free again."""
        if charged := self._charged.pop(delivery.key, None):
            lane, charge, began = charged
            self._fair.landed(lane, charged=charge, seconds=time.monotonic() - began)

    async def depth(self) -> Depth:
        """How full the open lanes are. Raises Unavailable."""
        return await self._queue.depth(list(self._lanes))

    async def _open_lanes(self) -> list[Lane]:
        """Those of a higher priority first."""
        if time.monotonic() - self._looked > _LANES_SECONDS:
            found = [*await self._database.read(runs.lanes), REPLAYS]
            self._lanes = {lane.run_id: lane for lane in sorted(found, key=lambda lane: -lane.priority)}
            self._fair.keep(found)
            self._looked = time.monotonic()
        return list(self._lanes.values())

    async def _left_behind(self, lanes: list[str], free: int) -> list[Delivery]:
        if time.monotonic() - self._looked_for_idle < self._lease_seconds / 2:
            return []
        found = await self._queue.take_idle(lanes, free, idle_seconds=self._lease_seconds)
        if len(found) < free:  # else there may be more, and trials behind those that had ended
            self._looked_for_idle = time.monotonic()
        for delivery in found:
            self._took(delivery.lane, asked=1, got=1)
        return found

    async def _new(self, lanes: list[Lane], free: int) -> list[Delivery]:
        found: list[Delivery] = []
        for _, equals in groupby(lanes, key=lambda lane: lane.priority):
            waiting = list(equals)
            while waiting and len(found) < free:
                asked = self._fair.plan(waiting, free - len(found))
                taken = await self._queue.take(asked)
                found += taken
                got = Counter(delivery.lane for delivery in taken)
                for run_id, count in asked.items():
                    self._took(run_id, asked=count, got=got[run_id])
                waiting = [lane for lane in waiting if got[lane.run_id] >= asked.get(lane.run_id, 0)]
        return found

    def _took(self, run_id: str, *, asked: int, got: int) -> None:
        self._fair.took(self._lanes[run_id], asked=asked, got=got)
