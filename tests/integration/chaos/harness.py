"""A whole controller as processes that may be killed: its Redis behind a proxy, its services as wild as asked for."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.integration.controller.stack import Stack
from tests.integration.controller.valkeys import Valkeys

LEASE = 1.5
CALL_SECONDS = 8
"""Deadline of a call to a service: so long a trainer that says nothing is waited for."""


class Proxy:
    """A port that passes everything on to another one, which may change; it can refuse, or swallow what comes."""

    def __init__(self) -> None:
        self.target = 0
        self._refuses = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def refuse(self) -> None:
        self._refuses = True
        for writer in list(self._open):
            writer.close()

    def swallow(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        self._refuses = False
        self._flows.set()

    def close(self) -> None:
        self.refuse()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if not self._refuses:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
                await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Harness(Stack):
    """`worker_count` workers, an API and the services; each can be killed and comes back."""

    def __init__(
        self, folder: Path, redis_port: int, proxy: Proxy, *, seconds: float, database_url: str = "", **env: str
    ) -> None:
        """`env`: more of the processes' environment."""
        super().__init__(folder, f"redis://127.0.0.1:{redis_port}/0", seconds=seconds, lease=LEASE)
        self.proxy = proxy
        self.valkeys = Valkeys(folder)
        own = {"call_seconds": CALL_SECONDS, "worker_concurrency": 8, "max_deliveries": 1000}
        self._settings |= {f"SEAL_CONTROLLER_{key.upper()}": str(value) for key, value in own.items()} | env
        if database_url:
            self._settings["SEAL_CONTROLLER_DATABASE_URL"] = database_url
        self.database_url = self._settings["SEAL_CONTROLLER_DATABASE_URL"]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.api_process: subprocess.Popen[bytes] | None = None
        self.models: subprocess.Popen[bytes] | None = None
        self.wild: random.Random | None = None
        """Where the services' whims come from; None: they have none."""

    def furnish(self, workers: int = 2) -> None:
        """Starts everything."""
        self.start_redis()
        self.models = self.start_models()
        self.api_process = self.start_api()
        self.workers = [self.start_worker() for _ in range(workers)]

    def start_redis(self) -> None:
        """A new one, which knows nothing, behind the same port."""
        self.proxy.target, self.valkey = self.valkeys.server()

    def start_models(self) -> subprocess.Popen[bytes]:
        if self.wild is None:
            return super().start_models()
        words = [str(self._models), str(self.seconds), str(self.wild.randrange(10**6))]
        return self._start("models", ["tests.integration.chaos.faulty_services_process", *words])

    def said(self) -> str:
        """The ends of the processes' logs."""
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        super().close()
        self.valkeys.close()
        self.proxy.close()


@asynccontextmanager
async def harness(folder: Path, *, seconds: float, **more: Any) -> AsyncIterator[Harness]:
    """A harness; nothing of it runs on afterwards."""
    proxy = Proxy()
    made = Harness(folder, await proxy.start(), proxy, seconds=seconds, **more)
    try:
        yield made
    finally:
        made.close()
