"""What a dead worker left is taken over at the pace of the slots, however much of it there is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fakeredis import FakeServer

from controller.db.database import Database
from controller.db.runs import RunStream
from controller.trial.dispatcher import Dispatcher
from tests.unit.controller.test_controller_queue import queue


class OneRun:
    """A database in which one run is under way."""

    async def read(self, *_: Any) -> list[RunStream]:
        return [RunStream("r", 0, 1.0)]


async def test_all_that_a_dead_worker_left_is_taken_before_the_next_pause() -> None:
    server = FakeServer()
    dead, alive = queue(server, "dead"), queue(server, "alive")
    await dead.put("r", [f"trial {number}" for number in range(7)])
    assert len(await dead.take({"r": 7})) == 7
    lease = 0.2
    await asyncio.sleep(lease * 1.1)
    dispatcher = Dispatcher(cast("Database", OneRun()), alive, lease_seconds=lease)
    found = []
    for _ in range(4):  # no pause in between: half a lease would be one
        deliveries = await dispatcher.next(2)
        await alive.done(deliveries)
        found += [delivery.body for delivery in deliveries]
    assert found == [f"trial {number}" for number in range(7)]
