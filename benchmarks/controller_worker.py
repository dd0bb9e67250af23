"""A worker for `benchmarks.controller`: `python -m benchmarks.controller_worker REPORT TRAINERS`.

The controller's own worker, settings by SEAL_CONTROLLER_*; its services answer at once in this process. With TRAINERS
above 0 that many adapters are trained at a time, a second each. At its end it writes to REPORT the waiting time of each
trial in the queue (ms), as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.__main__ import stop, worker_id
from controller.app import App
from controller.services import Services
from controller.settings import ControllerSettings, WorkerSettings
from sealkit.queue import Delivery, Queue
from sealkit.rpc.server import run
from tests.unit.controller.controller_fakes import FakeServices


class TimedQueue(Queue):
    """Records waiting times: a message's id begins with the time of its XADD."""

    waits: list[float]

    async def take(self, counts: Mapping[str, int]) -> list[Delivery]:
        """See `Queue`."""
        return self._noted(await super().take(counts))

    async def wait(self, streams: Sequence[str], *, seconds: float) -> list[Delivery]:
        """See `Queue`."""
        return self._noted(await super().wait(streams, seconds=seconds))

    def _noted(self, found: list[Delivery]) -> list[Delivery]:
        now = time.time() * 1000
        self.waits += [now - int(delivery.message_id.partition("-")[0]) for delivery in found]
        return found


def services(trainers: int) -> Services:
    """Instant services; `trainers`, if any, train for a second each."""
    fake, free = FakeServices(), asyncio.Semaphore(trainers)

    async def before(call: str, _what: str) -> None:
        for asked in (fake.specs, fake.evaluated):
            asked.clear()  # the fake stores all its requests; a service does not
        if trainers and call == "train":
            async with free:
                await asyncio.sleep(1)

    fake.before = before
    return Services(fake, fake, fake)


def main(report: Path, trainers: int) -> int:
    """Works until SIGTERM."""
    name, settings = worker_id(), WorkerSettings()
    queue = TimedQueue(settings.redis_url, consumer=name, stream=settings.queue)
    queue.waits = []

    def make() -> tuple[App, ControllerSettings]:
        own = services(trainers)
        return App(settings, worker_id=name, api=False, worker=True, stop=stop, queue=queue, services=own), settings

    code = run(make)
    report.write_text(json.dumps(queue.waits))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
