"""The HTTP server: uvicorn with our ports, certificates, time limits and stop signal."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.app import make_app
from gateway.settings import GatewaySettings
from sealkit.client import AsyncSealClient
from sealkit.errors import InvalidConfig
from sealkit.rpc.channel import cannot_listen
from sealkit.rpc.process import ServiceDied, ended_before, metrics_served, stop_signal
from sealkit.rpc.tls import Identity

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 10.0
"""How often the certificate's files are checked for changes."""


class Gateway:
    """The HTTP service on a port of this machine. `serve` runs it for a whole process; tests call the methods."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises InvalidConfig if other machines could reach it without TLS."""
        settings.check_open()
        self._settings = settings
        self._identity = settings.identity
        self._client = self._connect()
        self._older: list[AsyncSealClient] = []
        """Connections with a replaced certificate: their answers go on."""
        self._stopping = asyncio.Event()
        app = make_app(settings, lambda: self._client, self._stopping)
        config = uvicorn.Config(
            app,
            http=_protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(settings.idle_seconds),
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
            ssl_certfile=_certificate(self._identity),
            ssl_keyfile=str(self._identity.key) if self._identity else None,
        )
        self._config = config
        self._server = _Server(config)
        self._running: asyncio.Task[None] | None = None
        self.address = settings.listen
        """The listen address; with the actual port once `start` has returned."""

    async def start(self) -> None:
        """Opens the port. Raises Unavailable if it cannot be bound, InvalidConfig on invalid TLS files."""
        try:
            self._config.load()
        except (OSError, ssl.SSLError) as error:
            raise InvalidConfig(f"the certificate cannot be used: {error}") from error
        if self._config.ssl is not None:
            self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        port = _listening(self._settings.listen)
        self.address = f"{self._settings.listen.rpartition(':')[0]}:{port.getsockname()[1]}"
        self._running = asyncio.create_task(self._server.serve([port]))
        log.info("serving", address=self.address)

    async def stop(self) -> None:
        """Accepts no new requests, gives running ones the grace period, closes the connections to the controller."""
        self._server.should_exit = True
        self._stopping.set()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        for client in (self._client, *self._older):
            await client.close()
        log.info("stopped", address=self.address)

    async def work(self) -> None:
        """Uses replaced certificates from now on, on both sides. Ends only if the server does. Raises ServiceDied."""
        assert self._running is not None
        seen = self._identity.stamp() if self._identity else ()
        while not (await asyncio.wait((self._running,), timeout=_CHECK_SECONDS))[0]:
            if self._identity is None:
                continue
            try:
                if (now := self._identity.stamp()) == seen:
                    continue
                self.replace_certificate(self._identity)
                seen = now
            except (InvalidConfig, OSError, ssl.SSLError) as error:  # being replaced at this moment: tried again
                log.error("certificate not replaced", message=str(error))
        raise ServiceDied("the HTTP server ended")

    def replace_certificate(self, identity: Identity) -> None:
        """Reads the certificate's files again, for new connections. Raises InvalidConfig, OSError, SSLError."""
        identity.channel_credentials()
        assert self._config.ssl is not None
        self._config.ssl.load_cert_chain(str(identity.cert), str(identity.key))
        self._older = [*self._older[-1:], self._client]
        self._client = self._connect()
        log.info("certificate replaced", file=str(identity.cert))

    def _connect(self) -> AsyncSealClient:
        settings = self._settings
        return AsyncSealClient(
            settings.controller, identity=self._identity, answer_seconds=settings.answer_seconds, timeout=30
        )


async def serve(settings: GatewaySettings) -> None:
    """Runs the service until SIGTERM or SIGINT, then drains it. Raises what `Gateway` raises."""
    gateway = Gateway(settings)
    with stop_signal(settings.stack_file) as stop, metrics_served(settings.metrics_listen):
        await gateway.start()
        working = asyncio.ensure_future(gateway.work())
        try:
            if await ended_before(stop, working) and not stop.is_set():
                working.result()
        finally:
            await gateway.stop()


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(settings: GatewaySettings) -> type[H11Protocol]:
    """HTTP/1.1 that closes connections on which no whole request comes in time, and those above the limit."""

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.close()
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _wait(self) -> None:
            """Between two requests, from the first byte of the next: one timer until it has come."""
            if self.cycle is not None and not self.cycle.response_complete:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(settings.idle_seconds, self._give_up)

        def _give_up(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Protocol


def _certificate(identity: Identity | None) -> str | None:
    if identity is None:
        return None
    if identity.cert is None:
        raise InvalidConfig("the HTTP service needs its own certificate: set tls_cert and tls_key")
    identity.channel_credentials()
    return str(identity.cert)


def _listening(address: str) -> socket.socket:
    """A listening socket. Raises Unavailable."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen()
    except OSError as error:
        raise cannot_listen(address, error) from error
    return bound
