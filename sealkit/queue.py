"""The work queue: Redis streams (one per run), each with a consumer group.

A body is delivered at least once. It stays in its stream until `done`, so entries of a dead consumer are found by their
idle time and claimed. The consumer chooses which streams it reads, and how much. The truth is in the database: the
streams may be wiped at any moment, which costs only time.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sealkit.errors import Unavailable
from sealkit.redis_url import close, connect
from sealkit.urls import without_password

_REPLICA = "it is a replica: name its master in SEAL_CONTROLLER_REDIS_URL, or promote it"
_FIXES: Mapping[type[Exception] | str, str] = {
    "MISCONF": "it cannot save its data: make room on its disk, or let it write there",
    OutOfMemoryError: "give it more memory (`maxmemory`), or remove what else is in it",
    ReadOnlyError: _REPLICA,
    "UNBLOCKED": _REPLICA,  # it became one during a blocking read
    "WRONGTYPE": "another program uses the key: rename that one, or set another prefix with SEAL_CONTROLLER_QUEUE",
    AuthenticationError: "set the user and password in SEAL_CONTROLLER_REDIS_URL",
    NoPermissionError: "allow its user the keys and commands of the queue, as scripts/passwords.sh does",
}
"""What to do, by redis-py's class of the error or by a word in it."""
_PAGE = 1000
_GROUP = "workers"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body delivered to this consumer. `previous` is the consumer it was claimed from; None on a first delivery.
    `trace` comes from its producer (see `sealkit.observability.tracing`)."""

    stream: str
    message_id: str
    body: str
    previous: str | None = None
    trace: str = ""

    @property
    def key(self) -> str:
        """A unique key; a message id alone is unique only within its stream."""
        return f"{self.stream}/{self.message_id}"


@dataclass(frozen=True, slots=True)
class Depth:
    """Size of the queue: `waiting` bodies not yet delivered, `under_way` delivered and not acknowledged ones, and the
    age in seconds of the oldest waiting one."""

    waiting: int = 0
    under_way: int = 0
    oldest_seconds: float = 0.0


class Queue:
    """The streams as used by one consumer. Every method raises Unavailable with the URL if Redis does not answer; the
    next call reconnects."""

    def __init__(self, url: str, *, consumer: str, stream: str = "seal:trials", client: Redis | None = None) -> None:
        """`stream` is the prefix of all keys; `client` replaces the connection in tests. Raises InvalidConfig on a URL
        that is not a Redis URL."""
        self._shown = without_password(url)
        self._redis = client or connect(url)
        self._stream = stream
        self._index = f"{stream}:streams"
        self._consumer = consumer

    async def ping(self) -> None:
        """Checks that Redis answers."""
        await self._ask(lambda: self._redis.ping())

    async def check(self) -> None:
        """Checks that Redis lets this consumer do what the queue needs: write a stream of its own, read it through a
        group, delete it; and that what is under the queue's keys is the queue's. Raises Unavailable."""
        key = self._key(f"check-{uuid.uuid4().hex}")

        async def attempt() -> None:
            try:
                await self._redis.xadd(key, {"body": ""})
                await self._redis.xgroup_create(key, _GROUP, id="0")
                await self._redis.xreadgroup(_GROUP, self._consumer, {key: ">"}, count=1)
            finally:
                await self._redis.delete(key)

        await self._ask(attempt)
        for stream in sorted(await self.streams()):
            await self._ask(partial(self._redis.xlen, self._key(stream)))

    async def put(self, stream: str, bodies: Sequence[str], *, trace: str = "") -> None:
        """Appends bodies to the stream."""
        beside: dict[Any, Any] = {"trace": trace} if trace else {}

        async def add() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.sadd(self._index, stream)
                for body in bodies:
                    pipe.xadd(self._key(stream), {"body": body, **beside})
                await pipe.execute()

        if bodies:
            await self._ask(add)

    async def take(self, counts: Mapping[str, int]) -> list[Delivery]:
        """Reads at most `counts[stream]` undelivered bodies of each stream; returns at once."""

        async def read() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, count in counts.items():
                    pipe.xreadgroup(_GROUP, self._consumer, {self._key(stream): ">"}, count=count)
                return list(await pipe.execute(raise_on_error=False))

        found: list[Delivery] = []
        again: dict[str, int] = {}
        for stream, answer in zip(counts, await self._ask(read) if counts else (), strict=True):
            if isinstance(answer, ResponseError) and _group_is_missing(answer):
                await self._ask(partial(self._make_group, stream))
                again[stream] = counts[stream]  # only this one: the others' bodies were received
            elif isinstance(answer, Exception):
                raise await self._refused(answer) from answer
            else:
                found += self._deliveries(answer)
        return found + (await self.take(again) if again else [])

    async def wait(self, streams: Sequence[str], *, seconds: float) -> list[Delivery]:
        """Waits up to `seconds` for undelivered bodies; at most one of each stream."""
        block = max(1, int(seconds * 1000))
        keys: dict[Any, Any] = {self._key(stream): ">" for stream in streams}
        read = partial(self._redis.xreadgroup, _GROUP, self._consumer, keys, count=1, block=block)
        return self._deliveries(await self._ask(read, streams=streams))

    async def take_idle(self, streams: Sequence[str], count: int, *, idle_seconds: float) -> list[Delivery]:
        """Claims at most `count` bodies whose consumer sent no heartbeat for `idle_seconds`."""
        found: list[Delivery] = []
        for stream in streams:
            if len(found) < count:
                found += await self._claim(stream, count - len(found), int(idle_seconds * 1000))
        return found

    async def _claim(self, stream: str, count: int, idle: int) -> list[Delivery]:
        look = partial(self._redis.xpending_range, self._key(stream), _GROUP, min="-", max="+", count=count, idle=idle)
        pending = await self._ask(look, streams=[stream])
        owners = {entry["message_id"]: entry["consumer"] for entry in pending}
        if not owners:
            return []
        claim = partial(self._redis.xclaim, self._key(stream), _GROUP, self._consumer, idle, list(owners))
        claimed = await self._ask(claim, streams=[stream])
        return [_delivery(stream, number, fields, owners[number]) for number, fields in claimed if fields]

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Resets the idle time of this consumer's bodies (a heartbeat)."""

        async def claim() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, numbers in by_stream.items():
                    pipe.xclaim(self._key(stream), _GROUP, self._consumer, 0, [*numbers], justid=True)
                await pipe.execute()

        if by_stream := _by_stream(deliveries):
            await self._ask(claim, streams=by_stream)

    async def done(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges and deletes bodies; already deleted ones are ignored."""

        async def remove() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                for stream, numbers in by_stream.items():
                    pipe.xack(self._key(stream), _GROUP, *numbers)
                    pipe.xdel(self._key(stream), *numbers)
                await pipe.execute()

        if by_stream := _by_stream(deliveries):
            await self._ask(remove)

    async def bodies(self, stream: str, *, but_of: Collection[str] = ()) -> set[str]:
        """Every body in the stream, delivered or not, except those of these consumers."""
        left: set[str] = set()
        for consumer in but_of:
            look = partial(
                self._redis.xpending_range,
                self._key(stream),
                _GROUP,
                min="-",
                max="+",
                count=_PAGE,
                consumername=consumer,
            )
            left |= {entry["message_id"] for entry in await self._ask(look, streams=[stream])}
        found: set[str] = set()
        start = "-"
        while True:
            page = await self._ask(partial(self._redis.xrange, self._key(stream), min=start, count=_PAGE))
            found.update(_body(fields) for number, fields in page if number not in left)
            if len(page) < _PAGE:
                return found
            start = f"({page[-1][0]}"

    async def depth(self, streams: Sequence[str]) -> Depth:
        """Current size of these streams."""
        waiting, under_way, oldest = 0, 0, 0.0
        seconds, micros = await self._ask(lambda: self._redis.time())
        for stream in streams:
            length = int(await self._ask(partial(self._redis.xlen, self._key(stream))))
            groups = await self._ask(partial(self._redis.xinfo_groups, self._key(stream)), streams=[stream])
            group: dict[str, Any] = groups[0] if groups else {"pending": 0, "last-delivered-id": "0-0"}
            pending = int(group["pending"])
            under_way += pending
            waiting += max(0, length - pending)
            after = partial(self._redis.xrange, self._key(stream), min=f"({group['last-delivered-id']}", count=1)
            for number, _ in await self._ask(after):
                put_at = int(number.partition("-")[0]) / 1000
                oldest = max(oldest, seconds + micros / 1e6 - put_at)
        return Depth(waiting, under_way, oldest)

    async def streams(self) -> set[str]:
        """All existing streams."""
        return set(await self._ask(lambda: self._redis.smembers(self._index)))

    async def drop(self, streams: Sequence[str]) -> None:
        """Deletes streams with their contents."""

        async def remove() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(*map(self._key, streams))
                pipe.srem(self._index, *streams)
                await pipe.execute()

        if streams:
            await self._ask(remove)

    async def forget(self) -> None:
        """Removes this consumer from every stream in which it has no delivered bodies; others claim the rest."""
        for stream in await self.streams():
            key = self._key(stream)
            look = partial(
                self._redis.xpending_range, key, _GROUP, min="-", max="+", count=1, consumername=self._consumer
            )
            if not await self._ask(look, streams=[stream]):
                await self._ask(partial(self._redis.xgroup_delconsumer, key, _GROUP, self._consumer), streams=[stream])

    async def close(self) -> None:
        """Closes the connections."""
        await close(self._redis)

    def _key(self, stream: str) -> str:
        return f"{self._stream}:{stream}"

    def _deliveries(self, answer: Any) -> list[Delivery]:
        found = answer.items() if isinstance(answer, dict) else answer or ()
        return [
            _delivery(key.removeprefix(f"{self._stream}:"), number, fields)
            for key, entries in found
            for number, fields in entries
        ]

    async def _ask(self, call: Callable[[], Awaitable[Any]], streams: Iterable[str] = ()) -> Any:
        """Runs one command. Missing consumer groups (first use, or a wiped Redis) are created, and it is retried."""
        return await _cancellable(lambda: self._answered(call, streams))

    async def _answered(self, call: Callable[[], Awaitable[Any]], streams: Iterable[str]) -> Any:
        try:
            try:
                return await _cancellable(call)
            except ResponseError as error:
                if not _group_is_missing(error):
                    raise
                for stream in streams:
                    await self._make_group(stream)
                return await call()
        except AuthenticationError as error:  # redis-py derives it from ConnectionError, but the server is there
            raise await self._refused(error) from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise Unavailable(
                f"Redis at {self._shown} does not answer ({type(error).__name__}: {error}); "
                "start it, or set SEAL_CONTROLLER_REDIS_URL"
            ) from error
        except RedisError as error:
            raise await self._refused(error) from error

    async def _refused(self, error: Exception) -> Unavailable:
        """The error for a server that answers and refuses."""
        said, fix = str(error).rstrip("."), "its log says more"
        for sign, way in _FIXES.items():
            if isinstance(error, sign) if isinstance(sign, type) else sign in said:
                fix = way
        if fix == _REPLICA:
            # After a fail-over the name may lead to the new master, but only a new connection asks for it.
            await self._redis.connection_pool.disconnect()
        return Unavailable(f"Redis at {self._shown} answers and refuses: {said}; {fix}", metadata={"fix": fix})

    async def _make_group(self, stream: str) -> None:
        await self._redis.sadd(self._index, stream)
        try:
            await self._redis.xgroup_create(self._key(stream), _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _body(fields: Mapping[str, str]) -> str:
    """Empty if something else wrote the message: a meaningless body is removed like any other."""
    return fields.get("body", "").replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL rejects NUL in a query


def _delivery(stream: str, number: str, fields: Mapping[str, str], previous: str | None = None) -> Delivery:
    return Delivery(stream, number, _body(fields), previous, fields.get("trace", ""))


def _by_stream(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.stream, []).append(delivery.message_id)
    return found


async def _cancellable(call: Callable[[], Awaitable[Any]]) -> Any:
    """Python 3.11's `wait_for`, which redis-py uses, can swallow a cancellation that arrives together with the reply
    (or an error); a consumer's loop would then never end."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call()
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def _group_is_missing(error: ResponseError) -> bool:
    text = str(error)
    return "NOGROUP" in text or "requires the key to exist" in text or "no such key" in text
