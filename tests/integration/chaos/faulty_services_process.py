"""Fake services that misbehave: `python -m tests.integration.chaos.faulty_services_process PORT SECONDS SEED`.

One call in twelve or so is slow, hangs until its deadline, breaks, ends without a result, or tells a wrong digest.
Which ones, the seed and the order of the calls say; what a good call answers does not depend on it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

from sealkit.errors import AdapterCorrupt, QueueFull, Unavailable
from sealkit.rpc.interceptors import CallInterceptor
from sealkit.types import AdapterRef, Evaluation, EvaluationRequest, Progress, TrainingResult
from tests.integration.controller import fake_services_process
from tests.unit.controller.controller_fakes import FakeServices

WRONG = "0" * 64
"""A digest that no adapter has: the evaluator finds that the files do not match it."""
_ONE_IN = 12


class WildServices(FakeServices):
    """The fake services with a mind of their own."""

    def __init__(self, *, seconds: float, chance: random.Random) -> None:
        super().__init__(self._misbehave, seconds=seconds)
        self._chance = chance

    async def _misbehave(self, call: str, what: str) -> None:
        how = self._chance.randrange(_ONE_IN * 4)
        if how == 0:
            await asyncio.sleep(20 * self._seconds)
        elif how == 1:
            await asyncio.Event().wait()
        elif how == 2:
            raise Unavailable("this replica is going down")
        elif how == 3:
            raise QueueFull("no room", retry_after=0.2)

    async def train_adapter(self, *args: Any, **kwargs: Any) -> AsyncIterator[Progress | TrainingResult]:
        how = self._chance.randrange(_ONE_IN * 2)
        async for update in super().train_adapter(*args, **kwargs):
            if isinstance(update, TrainingResult):
                if how == 0:
                    return
                if how == 1:
                    wrong = AdapterRef(digest=WRONG)
                    update = update.model_copy(update={"adapter": wrong})
            yield update

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        if request.adapter is not None and request.adapter.digest == WRONG:
            raise AdapterCorrupt(f"the files of {request.adapter.digest} do not match it")
        return await super().evaluate(request)


if __name__ == "__main__":
    port, seconds, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    checked = CallInterceptor(
        tuple(f"seal.{name.lower()}.v1.{name}Service" for name in ("Generator", "Trainer", "Evaluator"))
    )
    checked.ready = True  # turns our errors into statuses, as the real services do
    wild = WildServices(seconds=seconds, chance=random.Random(seed))
    asyncio.run(fake_services_process.main(port, wild, [checked]))
