"""The queue of what is on its way: a Redis stream with a consumer group for each stream (a run, say).

A body is delivered at least once. It stays in its stream until `done`, so what a dead consumer left behind is found by
its idleness and claimed. Who reads which stream, and how much, is the consumer's choice.
What is true lives elsewhere (the record): the streams may be wiped at any moment, and then cost time only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sealkit.errors import Unavailable
from sealkit.redis_url import close, connect, without_password

_PAGE = 1000
_GROUP = "workers"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body handed to this consumer. `previous` is the consumer it was claimed from; None on a first delivery. `trace`
    is what its producer put beside it (see `sealkit.observability.tracing`)."""

    stream: str
    message_id: str
    body: str
    previous: str | None = None
    trace: str = ""

    @property
    def key(self) -> str:
        """What tells it from every other; a message id alone is its stream's."""
        return f"{self.stream}/{self.message_id}"


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the queue is: `waiting` bodies that no consumer has, `under_way` those that one has, and for how many
    seconds the oldest of those that wait has done so."""

    waiting: int = 0
    under_way: int = 0
    oldest_seconds: float = 0.0


class Queue:
    """The streams seen by one consumer. Every method raises Unavailable, naming the URL, where Redis does not answer;
    the next call connects anew."""

    def __init__(self, url: str, *, consumer: str, stream: str = "seal:trials", client: Redis | None = None) -> None:
        """`stream` begins the names of all keys; `client` replaces the connection in tests. Raises InvalidConfig on a
        URL that is not Redis's."""
        self._shown = without_password(url)
        self._redis = client or connect(url)
        self._stream = stream
        self._index = f"{stream}:streams"
        self._consumer = consumer

    async def ping(self) -> None:
        """Asks whether Redis answers."""
        await self._ask(lambda: self._redis.ping())

    async def put(self, stream: str, bodies: Sequence[str], *, trace: str = "") -> None:
        """Adds bodies at the stream's end."""
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
        """Of each stream at most so many bodies that no consumer has had; returns at once."""

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
                again[stream] = counts[stream]  # this one alone: what the others gave is in hand
            elif isinstance(answer, Exception):
                raise Unavailable(f"Redis at {self._shown} refuses: {answer}") from answer
            else:
                found += self._deliveries(answer)
        return found + (await self.take(again) if again else [])

    async def wait(self, streams: Sequence[str], *, seconds: float) -> list[Delivery]:
        """Waits up to `seconds` for bodies that no consumer has had; at most one of each stream."""
        block = max(1, int(seconds * 1000))
        keys: dict[Any, Any] = {self._key(stream): ">" for stream in streams}
        read = partial(self._redis.xreadgroup, _GROUP, self._consumer, keys, count=1, block=block)
        return self._deliveries(await self._ask(read, streams=streams))

    async def take_idle(self, streams: Sequence[str], count: int, *, idle_seconds: float) -> list[Delivery]:
        """Claims at most `count` bodies whose consumer gave no sign for `idle_seconds`."""
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
        """Gives a sign of life for what this consumer has under way."""

        async def claim() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, numbers in by_stream.items():
                    pipe.xclaim(self._key(stream), _GROUP, self._consumer, 0, [*numbers], justid=True)
                await pipe.execute()

        if by_stream := _by_stream(deliveries):
            await self._ask(claim, streams=by_stream)

    async def done(self, deliveries: Sequence[Delivery]) -> None:
        """Takes bodies off the queue for good; those that are gone already do no harm."""

        async def remove() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                for stream, numbers in by_stream.items():
                    pipe.xack(self._key(stream), _GROUP, *numbers)
                    pipe.xdel(self._key(stream), *numbers)
                await pipe.execute()

        if by_stream := _by_stream(deliveries):
            await self._ask(remove)

    async def bodies(self, stream: str, *, but_of: Collection[str] = ()) -> set[str]:
        """Every body in the stream, under way or not, but those that one of these consumers has."""
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
        """How full these streams are now."""
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
        """Every stream there is."""
        return set(await self._ask(lambda: self._redis.smembers(self._index)))

    async def drop(self, streams: Sequence[str]) -> None:
        """Removes streams with all that is in them."""

        async def remove() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(*map(self._key, streams))
                pipe.srem(self._index, *streams)
                await pipe.execute()

        if streams:
            await self._ask(remove)

    async def forget(self) -> None:
        """Removes this consumer from every stream in which it has nothing under way: others claim the rest."""
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
        """One question. Groups that are not there (first use, or a wiped Redis) are made, and it is asked again."""
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
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise Unavailable(
                f"Redis at {self._shown} does not answer ({type(error).__name__}: {error}); "
                "start it, or set SEAL_CONTROLLER_REDIS_URL"
            ) from error
        except RedisError as error:
            raise Unavailable(f"Redis at {self._shown} refuses: {error}") from error

    async def _make_group(self, stream: str) -> None:
        await self._redis.sadd(self._index, stream)
        try:
            await self._redis.xgroup_create(self._key(stream), _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _body(fields: Mapping[str, str]) -> str:
    """Empty where somebody else wrote the message: a body that means nothing is taken off like any other."""
    return fields.get("body", "").replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL cannot even be asked for NUL


def _delivery(stream: str, number: str, fields: Mapping[str, str], previous: str | None = None) -> Delivery:
    return Delivery(stream, number, _body(fields), previous, fields.get("trace", ""))


def _by_stream(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.stream, []).append(delivery.message_id)
    return found


async def _cancellable(call: Callable[[], Awaitable[Any]]) -> Any:
    """Python 3.11's `wait_for`, which redis-py uses, can swallow a cancellation that comes together with the answer,
    be it an error; a consumer's loop would then go on for ever."""
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
