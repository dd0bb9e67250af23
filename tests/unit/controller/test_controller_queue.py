"""The queue's promises that need no real server; a real Valkey is in tests/integration/controller."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sealkit.errors import InvalidConfig, Unavailable
from sealkit.queue import Delivery, Depth, Queue
from sealkit.urls import without_password


def queue(server: FakeServer, consumer: str) -> Queue:
    client = FakeRedis(server=server, decode_responses=True)
    return Queue("redis://user:secret@host:6379/0", consumer=consumer, client=client)


async def idle(of: Queue, count: int) -> list[Delivery]:
    """What is idle at all: fakeredis, unlike Redis, does not count what was read within this very millisecond."""
    await asyncio.sleep(0.003)
    return await of.take_idle(["r"], count, idle_seconds=0)


async def test_a_body_stays_until_it_is_done_and_is_claimed_from_the_dead() -> None:
    server = FakeServer()
    one, two = queue(server, "one"), queue(server, "two")
    await one.put("r", ["a", "b"])
    (first,) = await one.take({"r": 1})
    (second,) = await two.take({"r": 5})
    assert (first.body, first.previous, second.body) == ("a", None, "b")
    (claimed,) = [d for d in await idle(two, 5) if d.body == "a"]
    assert claimed.previous == "one"
    await two.done([claimed, second])
    assert await two.bodies("r") == set()
    assert await idle(one, 5) == []


@pytest.mark.parametrize("answer", [None, ResponseError("NOGROUP no such key"), RedisTimeoutError()], ids=repr)
async def test_a_cancellation_that_the_client_swallows_is_one_all_the_same(answer: Exception | None) -> None:
    asked = asyncio.Event()

    class Swallows:
        """As `asyncio.wait_for` of Python 3.11 does where the answer comes in the same turn of the loop."""

        async def ping(self) -> None:
            asked.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                if answer is not None:
                    raise answer from None

    waiting = asyncio.create_task(Queue("redis://fake", consumer="one", client=cast("FakeRedis", Swallows())).ping())
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_is_renewed_is_not_idle() -> None:
    server = FakeServer()
    one, two = queue(server, "one"), queue(server, "two")
    await one.put("r", ["a"])
    (first,) = await one.take({"r": 1})
    await one.renew([first])
    assert await two.take_idle(["r"], 5, idle_seconds=30) == []


async def test_a_lane_that_is_new_or_was_wiped_loses_nothing_of_the_others() -> None:
    server = FakeServer()
    one = queue(server, "one")
    await one.put("old", ["a", "b"])
    assert [d.body for d in await one.wait(["old", "new"], seconds=0.001)] == ["a"]
    await one.put("newest", ["c"])
    assert [d.body for d in await one.take({"newest": 1, "old": 1})] == ["b", "c"]
    assert await one.streams() == {"old", "new", "newest"}
    await one.drop(["old", "newest"])
    assert await one.streams() == {"new"}


async def test_the_oldest_that_waits_is_told_and_what_is_under_way_does_not_count() -> None:
    one = queue(FakeServer(), "one")
    await one.put("r", ["a"])
    assert [d.body for d in await one.wait(["r"], seconds=0.001)] == ["a"]
    assert await one.depth(["r"]) == Depth(waiting=0, under_way=1, oldest_seconds=0.0)
    await one.put("r", ["b"])
    await asyncio.sleep(0.01)
    depth = await one.depth(["r", "empty"])
    assert (depth.waiting, depth.under_way) == (1, 1)
    assert 0.005 < depth.oldest_seconds < 30


async def test_more_than_a_page_of_bodies_is_seen() -> None:
    one = queue(FakeServer(), "one")
    bodies = [str(i) for i in range(2500)]
    await one.put("r", bodies)
    assert await one.bodies("r") == set(bodies)
    assert (await one.depth(["r"])).waiting == 2500


async def test_what_the_dead_have_counts_as_lost() -> None:
    server = FakeServer()
    one, two = queue(server, "one"), queue(server, "two")
    await one.put("r", ["a", "b", "c"])
    await one.take({"r": 1})
    await two.take({"r": 1})
    assert await two.bodies("r", but_of={"one", "never seen"}) == {"b", "c"}


async def test_a_consumer_with_something_under_way_is_not_forgotten() -> None:
    server = FakeServer()
    one, two = queue(server, "one"), queue(server, "two")
    await one.put("r", ["a"])
    await one.take({"r": 1})
    await one.forget()
    assert [d.body for d in await idle(two, 1)] == ["a"]


async def test_a_dead_redis_is_named_without_its_password_and_back_when_it_is_back() -> None:
    server = FakeServer()
    one = queue(server, "one")
    server.connected = False
    with pytest.raises(Unavailable, match=r"redis://user:\*\*\*@host:6379/0") as raised:
        await one.put("r", ["a"])
    assert "secret" not in str(raised.value)
    server.connected = True
    await one.put("r", ["a"])
    assert await one.bodies("r") == {"a"}


async def test_a_wrong_password_is_not_a_dead_server() -> None:
    """redis-py raises a ConnectionError for both."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one = Queue(f"redis://user:secret@127.0.0.1:{port}/0", consumer="one")
        with pytest.raises(Unavailable, match=r"answers and refuses: .*set the user and password") as raised:
            await one.ping()
        await one.close()
    assert "secret" not in raised.value.message
    assert "does not answer" not in raised.value.message


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="redis://"):
        Queue("http://user:pw@host", consumer="one")


def test_only_the_password_is_hidden() -> None:
    assert without_password("redis://host:1/0") == "redis://host:1/0"
    assert without_password("rediss://:pw@host:1/0?x=1") == "rediss://:***@host:1/0?x=1"
