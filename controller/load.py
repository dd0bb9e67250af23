"""How busy the model services are, for callers that want to see it."""

from __future__ import annotations

import asyncio
import time

import structlog

from controller.services import Services
from sealkit.errors import SealError
from sealkit.resources import ServiceReplica

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 1.0
_WAIT_SECONDS = 0.5


class ServiceLoad:
    """Asks the replicas when somebody wants to know: at most once in `_EVERY_SECONDS` for all callers together. Those
    that do not answer within `_WAIT_SECONDS` are reported as they were before."""

    def __init__(self, services: Services) -> None:
        self._services = (services.generator, services.trainer, services.evaluator)
        self._looking: asyncio.Task[None] | None = None
        self._looked = -float("inf")

    async def replicas(self, *, whole: bool) -> tuple[ServiceReplica, ...]:
        """The replicas, by service and address; `whole`: with address and error."""
        if (self._looking is None or self._looking.done()) and time.monotonic() - self._looked >= _EVERY_SECONDS:
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=_WAIT_SECONDS)
        found = [replica for service in self._services for replica in service.replicas()]
        return tuple(found if whole else (replica.changed(address="", error=None) for replica in found))

    async def close(self) -> None:
        """Asks no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        found = await asyncio.gather(*(service.look() for service in self._services), return_exceptions=True)
        for error in found:
            if isinstance(error, SealError):
                log.warning("replicas not asked", message=error.message)
            elif error is not None:
                raise error
