"""The replicas of one service: found by name, each with a channel of its own, the least loaded called next.

A target is `host:port`, several of them separated by commas, or `unix:PATH`; a host may be a DNS name with many
addresses (a compose service, a headless Kubernetes service), which is asked again every few seconds, so replicas come
and go while a run goes on. gRPC's own `round_robin` does not do: it looks a name up again only when a connection
breaks, counts calls and not load, and knows nothing of a replica that is full.

A replica is called once it has told its base model and that is the others' model; it is left out from the call that
finds it dead until it answers again.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from sealkit.errors import Cancelled, DeadlineExceeded, InvalidConfig, ModelMismatch, QueueFull, SealError, Unavailable
from sealkit.rpc.channel import open_channel
from sealkit.rpc.tls import Identity, Stamp
from sealkit.types import ModelInfo

log = structlog.get_logger(__name__)

_RESOLVE_SECONDS = 3.0
_LOOK_SECONDS = 0.5
_FULL_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class Replica:
    """One address; `ready` once it may be called."""

    address: str
    channel: grpc.aio.Channel
    stub: Any
    calls: int = 0
    model: ModelInfo | None = None
    ready: bool = False
    error: SealError | None = None
    full_until: float = -float("inf")
    turn: int = 0
    gone: bool = False
    """No longer among the name's addresses: its calls end, and it gets no new one."""


Ask = Callable[[Replica], Awaitable[ModelInfo]]
Resolve = Callable[[str], Awaitable["Found"]]


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses behind a target; not `complete` where a name could not be looked up."""

    addresses: frozenset[str]
    complete: bool = True


@dataclass(eq=False)
class Replicas:
    """All replicas of a service. For one event loop. `stub` is the class of its stubs, `ask` asks a replica for its
    base model."""

    service: str
    target: str
    stub: Callable[[grpc.aio.Channel], Any]
    ask: Ask
    max_message_mib: int = 64
    identity: Identity | None = None
    resolve: Resolve = field(default_factory=lambda: resolved)
    _known: dict[str, Replica] = field(default_factory=dict)
    _resolved: float = -float("inf")
    _turn: int = 0
    _stamp: Stamp = ()
    _looking: asyncio.Task[None] | None = None
    _look_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def server_name(self) -> str:
        """Whom a replica's certificate must be for: addresses change, the service's name does not."""
        return self.service if self.identity else ""

    @property
    def peer(self) -> str:
        """The service as a person reads it."""
        return f"{self.service} at {self.target}"

    async def close(self) -> None:
        """Closes the channels; calls under way are cancelled."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for replica in self._known.values():
            await replica.channel.close()

    @asynccontextmanager
    async def one(self, tried: set[str]) -> AsyncIterator[Replica]:
        """The least loaded replica that is ready, not full and not in `tried`, for one call; its address is added to
        `tried`. Raises Unavailable where none is."""
        replica = await self._pick(tried)
        tried.add(replica.address)
        replica.calls += 1
        self._turn += 1
        replica.turn = self._turn
        try:
            yield replica
        except QueueFull as error:
            replica.full_until = time.monotonic() + (error.retry_after or _FULL_SECONDS)
            raise
        except Unavailable as error:
            replica.ready, replica.error = False, error
            raise
        finally:
            replica.calls -= 1
            if replica.gone and not replica.calls:
                await replica.channel.close()

    def others(self, tried: set[str]) -> bool:
        """Whether a replica is ready and not full that is not in `tried`."""
        return bool(self._free(tried))

    async def model(self) -> ModelInfo:
        """The base model that the replicas hold. Raises ModelMismatch where they differ; Unavailable where none
        answers."""
        await self._look(everyone=True)
        held = {replica.address: replica.model for replica in self._known.values() if replica.model}
        if len({model.digest for model in held.values()}) > 1:
            shown = ", ".join(f"{address} holds {model.name} ({model.digest[:12]})" for address, model in held.items())
            raise ModelMismatch(f"replicas of the {self.service} hold different base models: {shown}")
        for replica in self._known.values():
            if replica.ready and replica.model:
                return replica.model
        raise self._nobody()

    async def _pick(self, tried: set[str]) -> Replica:
        if self._looking is None or self._looking.done():
            # Not in the caller's context: its run and trial are no part of what is logged there.
            self._looking = asyncio.create_task(self._keep_looking(), context=Context())
        if not any(replica.ready for replica in self._known.values()):
            await self._look()
        free = self._free(tried) or [r for r in self._ready() if r.address not in tried] or self._ready()
        if not free:
            raise self._nobody()
        return min(free, key=lambda replica: (replica.calls, replica.turn))

    def _ready(self) -> list[Replica]:
        return [replica for replica in self._known.values() if replica.ready]

    def _free(self, tried: set[str]) -> list[Replica]:
        now = time.monotonic()
        return [r for r in self._ready() if r.address not in tried and r.full_until <= now]

    def _nobody(self) -> SealError:
        for replica in self._known.values():
            if replica.error is not None:
                return replica.error
        return Unavailable(f"{self.peer} has no address; is the name right, and is it running?")

    # --- who there is -------------------------------------------------------------------------------------------------
    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look()
            except SealError as error:
                log.warning("replicas not looked for", service=self.service, message=error.message)

    async def _look(self, *, everyone: bool = False) -> None:
        """Looks the names up again, where that was some seconds ago, and asks those that are not ready; or everyone:
        one that was started again since its last call may hold another model."""
        async with self._look_lock:
            if time.monotonic() - self._resolved > _RESOLVE_SECONDS:
                await self._update(await self.resolve(self.target))
                self._resolved = time.monotonic()
            asked = [replica for replica in self._known.values() if everyone or not replica.ready]
            await asyncio.gather(*(self._admit(replica) for replica in asked))

    async def _update(self, found: Found) -> None:
        if self.identity is not None and self._known:
            try:
                self.identity.channel_credentials()
            except InvalidConfig as error:  # being replaced at this moment: those that are open go on
                log.error("certificate not replaced", service=self.service, message=error.message)
                return
        if self.identity is not None and (stamp := self.identity.stamp()) != self._stamp:
            await self._drop(set(self._known))  # channels keep the certificate that they were opened with
            self._stamp = stamp
        for address in found.addresses - self._known.keys():
            channel = open_channel(
                address, max_message_mib=self.max_message_mib, identity=self.identity, server_name=self.server_name
            )
            self._known[address] = Replica(address, channel, self.stub(channel))
        if found.complete:
            await self._drop(self._known.keys() - found.addresses)

    async def _drop(self, addresses: Set[str]) -> None:
        """Calls none of these any more; what is under way there comes to its end."""
        for address in addresses:
            replica = self._known.pop(address)
            replica.gone = True
            log.info("replica is gone", service=self.service, address=address)
            if not replica.calls:
                await replica.channel.close()

    async def _admit(self, replica: Replica) -> None:
        """Asks a replica for its model: it is ready where it answers and holds what the others do."""
        was_ready = replica.ready
        try:
            replica.model = await self.ask(replica)
        except (Unavailable, DeadlineExceeded, Cancelled) as error:
            replica.ready, replica.model = False, None
            replica.error = Unavailable(error.message, retry_after=error.retry_after)
            return
        others = {other.model.digest for other in self._ready() if other.model and other is not replica}
        replica.ready = not others or replica.model.digest in others
        replica.error = None
        if not replica.ready:
            name, digest = replica.model.name, replica.model.digest[:12]
            message = f"{self.service} at {replica.address} holds {name} ({digest}), which the others do not"
            replica.error = ModelMismatch(message)
            log.error("replica left out", service=self.service, address=replica.address, message=message)
        elif not was_ready:
            log.info("replica is ready", service=self.service, address=replica.address)


async def resolved(target: str) -> Found:
    """The addresses behind a target, `ip:port` or `unix:path`: IPv4 where a name has any, else IPv6."""
    parts = [part.strip() for part in target.split(",") if part.strip()]
    found = await asyncio.gather(*map(_addresses, parts))
    return Found(frozenset[str]().union(*(one or () for one in found)), complete=None not in found)


async def _addresses(part: str) -> set[str] | None:
    if part.startswith("unix:"):
        return {part}
    host, _, port = part.removeprefix("dns:").lstrip("/").rpartition(":")
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("name not found", host=host, message=str(error))
        return None
    four = {f"{answer[4][0]}:{port}" for answer in answers if answer[0] == socket.AF_INET}
    return four or {f"[{answer[4][0]}]:{port}" for answer in answers}
