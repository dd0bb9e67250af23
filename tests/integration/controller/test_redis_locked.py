"""The queue through the Redis that docker-compose.yml sets up: TLS with a client certificate, and a user who may do
what the queue needs and nothing else."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from seal_cli import certs
from sealkit.errors import Unavailable
from sealkit.queue import Queue

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here (Debian's package has it)"),
]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server with the rights that scripts/passwords.sh writes."""
    script = (ROOT / "scripts/passwords.sh").read_text()
    (rights,) = re.findall(r'^(user seal on >\$made [^"]*)"', script, re.MULTILINE)
    (tmp_path / "redis.acl").write_text(f"user default off\n{rights.replace('$made', 'secret')}\n")
    certs.make(tmp_path, ["redis", "worker"], hosts=[], days=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = tmp_path / "redis"
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(tls / "tls.crt"),
         "--tls-key-file", str(tls / "tls.key"), "--tls-ca-cert-file", str(tls / "ca.crt"),
         "--aclfile", str(tmp_path / "redis.acl"), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    own = tmp_path / "worker"
    files = f"ssl_ca_certs={own}/ca.crt&ssl_certfile={own}/tls.crt&ssl_keyfile={own}/tls.key"
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield f"rediss://seal:secret@localhost:{port}/0?{files}"
    finally:
        server.terminate()
        server.wait(10)


async def test_the_queue_has_all_the_rights_it_needs(url: str) -> None:
    queue, other = Queue(url, consumer="a", stream="seal:trials"), Queue(url, consumer="b", stream="seal:trials")
    await queue.ping()
    await queue.put("runs/r", ["one", "two"])
    assert await queue.streams() == {"runs/r"}
    assert await queue.bodies("runs/r") == {"one", "two"}
    taken = await queue.take({"runs/r": 2}) or await queue.take({"runs/r": 2})  # the first may only make the group
    assert [delivery.body for delivery in taken] == ["one", "two"]
    await queue.renew(taken)
    assert (await queue.depth(["runs/r"])).under_way == 2
    await asyncio.sleep(0.01)
    again = await other.take_idle(["runs/r"], 2, idle_seconds=0.001)
    assert {delivery.body for delivery in again} == {"one", "two"}
    await other.done(again)
    assert await queue.wait(["runs/r"], seconds=0.05) == []
    await queue.drop(["runs/r"])
    await queue.forget()
    await queue.close()
    await other.close()


async def test_and_no_more(url: str) -> None:
    client = Redis.from_url(url)
    for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SET", "elsewhere", "1"), ("SHUTDOWN",)):
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command)
    await client.aclose()


async def test_without_a_certificate_or_the_password_nobody_gets_in(url: str) -> None:
    bare = url.split("&")[0]
    with pytest.raises(Unavailable):
        await Queue(bare, consumer="a", stream="seal:trials").ping()
    guess = Redis.from_url(url.replace("secret", "guess"))
    with pytest.raises(RedisError):
        await guess.ping()
    await guess.aclose()
