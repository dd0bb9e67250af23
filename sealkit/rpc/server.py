"""How every service runs: gRPC with health, reflection and our interceptor, metrics, graceful shutdown.

Health (overall and per service) is NOT_SERVING until the service has started, and again from the stop signal on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import nan
from typing import Protocol, runtime_checkable

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealkit.errors import InvalidConfig
from sealkit.observability.metrics import CERTIFICATE_EXPIRY
from sealkit.rpc.authority import Authority, Everyone, Peers
from sealkit.rpc.channel import bind, server_options
from sealkit.rpc.interceptors import CallInterceptor, Remembers
from sealkit.rpc.process import Program, ServiceDied, ended_before, metrics_served, run_program, stop_signal
from sealkit.rpc.settings import ServerSettings
from sealkit.rpc.tls import Identity

__all__ = ["Drains", "GrpcServer", "ServerSettings", "Service", "ServiceDied", "Works", "run", "serve"]

log = structlog.get_logger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Service(Protocol):
    """The gRPC services of a process. `full_names`: `seal.trainer.v1.TrainerService` for example."""

    @property
    def full_names(self) -> tuple[str, ...]: ...

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicers."""
        ...

    async def start(self) -> None:
        """Prepares the service (loads the model). Health is NOT_SERVING until it returns."""
        ...

    async def close(self) -> None:
        """Called after the drain, if `start` had returned."""
        ...


@runtime_checkable
class Drains(Protocol):
    """A service with calls that may wait indefinitely (watch streams)."""

    async def drain(self) -> None:
        """Called when the drain begins: ends those calls, so that the drain does not take the whole grace period."""
        ...


@runtime_checkable
class Guarded(Protocol):
    """A service with its own authority; the others allow the peers in their settings."""

    @property
    def authority(self) -> Authority: ...


@runtime_checkable
class Works(Protocol):
    """A service with background work (an engine's thread)."""

    async def work(self) -> None:
        """Runs as long as that work. When it ends, the process ends with its error."""
        ...


class GrpcServer:
    """A service on a port of this machine. `serve` runs it for a whole process; tests call the methods directly."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._service = service
        self._settings = settings
        memory = service if isinstance(service, Remembers) else None
        self._interceptor = CallInterceptor(
            service.full_names, _authority(service, settings), memory, max_calls=settings.max_calls
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[self._interceptor], options=server_options(settings.max_message_mib)
        )
        self._started = False
        self.address = settings.listen
        """The listen address; with the actual port once `listen` has returned."""

    async def listen(self) -> None:
        """Opens the port; from now on health answers. Raises Unavailable if the port cannot be bound, InvalidConfig if
        other machines could reach it without TLS."""
        settings = self._settings
        settings.check_open()
        names = (*self._service.full_names, health.SERVICE_NAME)
        await self._set_health(_NOT_SERVING)
        self._service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        identity = self._settings.identity
        credentials = None
        if identity is not None:
            credentials = identity.server_credentials(client_certificates=self._settings.tls_client_certificates)
            CERTIFICATE_EXPIRY.set_function(partial(_expiry, identity))
        port = bind(self._server, self._settings.listen, credentials)
        if not self._settings.listen.startswith("unix:"):
            self.address = f"{self._settings.listen.rpartition(':')[0]}:{port}"
        await self._server.start()
        log.info("listening", address=self.address)

    async def start(self) -> None:
        """Starts the service and accepts calls."""
        await self._service.start()
        self._started = True
        self._interceptor.ready = True
        await self._set_health(_SERVING)
        log.info("serving", address=self.address)

    async def stop(self, grace: float | None = None) -> None:
        """Reports NOT_SERVING at once, accepts no new calls, gives running ones `grace` seconds, closes the service."""
        await self._health.enter_graceful_shutdown()
        if self._started and isinstance(self._service, Drains):
            await self._service.drain()
        await self._server.stop(self._settings.grace_seconds if grace is None else grace)
        if self._started:
            self._started = False
            await self._service.close()
        log.info("stopped", address=self.address)

    async def _set_health(self, status: int) -> None:
        for name in ("", *self._service.full_names):
            await self._health.set(name, status)


async def serve(service: Service, settings: ServerSettings) -> None:
    """Runs the service until SIGTERM or SIGINT, then drains it; a second signal ends the process at once. A process of
    the embedded stack also ends once the stack's state file no longer lists it.

    Raises what `service.start` raises, Unavailable if a port cannot be bound, and ServiceDied if the service's
    background work ended: it is drained first, so that health reports NOT_SERVING and a supervisor restarts it.
    """
    server = GrpcServer(service, settings)
    with stop_signal(settings.stack_file) as stop, metrics_served(settings.metrics_listen):
        try:
            await server.listen()
            await _start_until(server, stop)
            if isinstance(service, Works) and not stop.is_set():
                await _work_until(service, stop)
            else:
                await stop.wait()
        finally:
            await server.stop()


def run(make: Callable[[], tuple[Service, ServerSettings]]) -> int:
    """A service's whole process; returns the exit code: 0 after a clean stop, 1 if it could not start or its background
    work died (with one line on stderr), 2 on bad settings."""

    def prepare() -> Program:
        service, settings = make()
        return Program(service.full_names[0].split(".")[1], settings, lambda: serve(service, settings))

    return run_program(prepare)


async def _start_until(server: GrpcServer, stop: asyncio.Event) -> None:
    """Starts the server, unless the stop signal comes before."""
    starting = asyncio.ensure_future(server.start())
    if await ended_before(stop, starting):
        starting.result()


async def _work_until(service: Works, stop: asyncio.Event) -> None:
    """Waits for the stop signal; raises ServiceDied if the background work ends before."""
    working = asyncio.ensure_future(service.work())
    if await ended_before(stop, working) and not stop.is_set():
        error = working.exception()
        said = (str(error).strip().splitlines() or [""])[0]
        raise ServiceDied(f"{type(error).__name__}: {said}" if error else "its background work ended") from error


def _authority(service: Service, settings: ServerSettings) -> Authority:
    if settings.identity is None:
        return Everyone()
    return service.authority if isinstance(service, Guarded) else Peers(frozenset(settings.tls_peers))


def _expiry(identity: Identity) -> float:
    try:
        return identity.expiry()
    except InvalidConfig:
        return nan
