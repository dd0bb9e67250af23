"""The replicas of one service: found by name, one channel each; calls go to the least loaded one.

A target is `host:port`, several of them separated by commas, or `unix:PATH`; a host may be a DNS name with many
addresses (a compose service, a headless Kubernetes service), which is resolved again every few seconds, so replicas can
be added and removed during a run. gRPC's own `round_robin` is not enough: it resolves a name again only when a
connection breaks, balances calls and not load, and ignores that a replica is full.

A replica gets calls once it has reported its base model and the model is the others'. After a failed call it is left
out until it answers again.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import structlog

from sealkit.errors import Cancelled, DeadlineExceeded, InvalidConfig, ModelMismatch, QueueFull, SealError, Unavailable
from sealkit.faults import fault_of
from sealkit.resources import ReplicaState, ServiceReplica
from sealkit.rpc.channel import open_channel
from sealkit.rpc.tls import Identity, Stamp
from sealkit.types import ModelInfo, Occupancy

log = structlog.get_logger(__name__)

_RESOLVE_SECONDS = 3.0
_POLL_SECONDS = 0.5
_FULL_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class Replica:
    """One address; `ready` once it may get calls."""

    address: str
    channel: grpc.aio.Channel
    stub: Any
    calls: int = 0
    model: ModelInfo | None = None
    occupancy: Occupancy | None = None
    ready: bool = False
    error: SealError | None = None
    full_until: float = -float("inf")
    turn: int = 0
    gone: bool = False
    """No longer among the name's addresses: running calls finish, and it gets no new ones."""


class Said(NamedTuple):
    """What a replica says of itself; without `occupancy` if it does not know."""

    model: ModelInfo
    occupancy: Occupancy | None = None


Ask = Callable[[Replica], Awaitable[Said]]
Resolve = Callable[[str], Awaitable["Found"]]


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a target; not `complete` if a name could not be resolved."""

    addresses: frozenset[str]
    complete: bool = True


@dataclass(eq=False)
class Replicas:
    """All replicas of a service. For one event loop. `stub` is the class of its stubs, `ask` queries a
    replica."""

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
        """The name in a replica's certificate: addresses change, the service's name does not."""
        return self.service if self.identity else ""

    @property
    def peer(self) -> str:
        """The service, for messages."""
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
        `tried`. Raises Unavailable if there is none."""
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
        """Whether there is a replica that is ready, not full and not in `tried`."""
        return bool(self._free(tried))

    async def model(self) -> ModelInfo:
        """The base model of the replicas. Raises ModelMismatch if they differ, Unavailable if none answers."""
        await self._look(everyone=True)
        held = {replica.address: replica.model for replica in self._known.values() if replica.model}
        if len({model.digest for model in held.values()}) > 1:
            shown = ", ".join(f"{address} has {model.name} ({model.digest[:12]})" for address, model in held.items())
            raise ModelMismatch(f"replicas of the {self.service} have different base models: {shown}")
        for replica in self._known.values():
            if replica.ready and replica.model:
                return replica.model
        raise self._nobody()

    async def look(self) -> None:
        """Asks every replica. Raises what cannot be resolved: InvalidConfig."""
        await self._look(everyone=True)

    def seen(self) -> list[ServiceReplica]:
        """The replicas as they last were, by address; one without an address if there is none."""
        known = sorted(self._known.values(), key=lambda replica: replica.address)
        return [_seen(self.service, replica) for replica in known] or [_without_address(self.service, self._nobody())]

    async def _pick(self, tried: set[str]) -> Replica:
        if self._looking is None or self._looking.done():
            # Not in the caller's context, so that its run and trial ids are not in these log lines.
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

    # --- discovery ----------------------------------------------------------------------------------------------------
    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self._look()
            except SealError as error:
                log.warning("replicas not resolved", service=self.service, message=error.message)

    async def _look(self, *, everyone: bool = False) -> None:
        """Resolves the names again if the last time was some seconds ago, and checks the replicas that are not ready;
        or all of them: one that was restarted since its last call may have another model."""
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
            except InvalidConfig as error:  # being replaced at this moment: open channels stay in use
                log.error("certificate not replaced", service=self.service, message=error.message)
                return
        if self.identity is not None and (stamp := self.identity.stamp()) != self._stamp:
            await self._drop(set(self._known))  # channels keep the certificate they were opened with
            self._stamp = stamp
        for address in found.addresses - self._known.keys():
            channel = open_channel(
                address, max_message_mib=self.max_message_mib, identity=self.identity, server_name=self.server_name
            )
            self._known[address] = Replica(address, channel, self.stub(channel))
        if found.complete:
            await self._drop(self._known.keys() - found.addresses)

    async def _drop(self, addresses: Set[str]) -> None:
        """Sends these no more calls; running ones finish."""
        for address in addresses:
            replica = self._known.pop(address)
            replica.gone = True
            log.info("replica removed", service=self.service, address=address)
            if not replica.calls:
                await replica.channel.close()

    async def _admit(self, replica: Replica) -> None:
        """Checks a replica's model: it is ready if it answers and has the others' model."""
        was_ready = replica.ready
        try:
            replica.model, replica.occupancy = await self.ask(replica)
        except (Unavailable, DeadlineExceeded, Cancelled) as error:
            replica.ready, replica.model, replica.occupancy = False, None, None
            replica.error = Unavailable(error.message, retry_after=error.retry_after)
            return
        others = {other.model.digest for other in self._ready() if other.model and other is not replica}
        replica.ready = not others or replica.model.digest in others
        replica.error = None
        if not replica.ready:
            name, digest = replica.model.name, replica.model.digest[:12]
            message = f"{self.service} at {replica.address} has {name} ({digest}), not the others' model"
            replica.error = ModelMismatch(message)
            log.error("replica left out", service=self.service, address=replica.address, message=message)
        elif not was_ready:
            log.info("replica is ready", service=self.service, address=replica.address)


def _seen(service: str, replica: Replica) -> ServiceReplica:
    """A replica that failed in a call since it was asked is NOT_SERVING too."""
    if replica.ready:
        state = ReplicaState.SERVING
    else:
        state = ReplicaState.OTHER_MODEL if isinstance(replica.error, ModelMismatch) else ReplicaState.NOT_SERVING
    answers = state is not ReplicaState.NOT_SERVING
    return ServiceReplica(
        service=service,
        address=replica.address,
        state=state,
        base_model=replica.model if answers else None,
        occupancy=replica.occupancy if answers else None,
        error=fault_of(replica.error) if replica.error else None,
    )


def _without_address(service: str, error: SealError) -> ServiceReplica:
    return ServiceReplica(service=service, state=ReplicaState.NOT_SERVING, error=fault_of(error))


async def resolved(target: str) -> Found:
    """The addresses of a target, `ip:port` or `unix:path`: IPv4 if a name has any, else IPv6."""
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
        log.warning("name not resolved", host=host, message=str(error))
        return None
    four = {f"{answer[4][0]}:{port}" for answer in answers if answer[0] == socket.AF_INET}
    return four or {f"[{answer[4][0]}]:{port}" for answer in answers}
