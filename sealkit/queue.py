"""The queue of what is on its way: one Redis stream with one consumer group.

A body is delivered at least once. It stays in the stream until `done`, so what a dead consumer left behind is found
by its idleness and claimed. What is true lives elsewhere (the record): the stream may be wiped at any moment, and
then costs time only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sealkit.errors import InvalidConfig, Unavailable

_PAGE = 1000
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body handed to this consumer. `previous` is the consumer it was claimed from; None on a first delivery."""

    message_id: str
    body: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the queue is: `waiting` bodies that no consumer has, `under_way` those that one has."""

    waiting: int
    under_way: int


class Queue:
    """A stream seen by one consumer. Every method raises Unavailable, naming the URL, where Redis does not answer;
    the next call connects anew."""

    def __init__(self, url: str, *, consumer: str, stream: str = "seal:trials", client: Redis | None = None) -> None:
        """`client` replaces the connection in tests. Raises InvalidConfig on a URL that is not Redis's."""
        self._shown = without_password(url)
        try:
            self._redis = client or Redis.from_url(
                url,
                decode_responses=True,
                socket_connect_timeout=_ANSWER_SECONDS,
                socket_timeout=2 * _ANSWER_SECONDS,
                health_check_interval=15,
                retry=Retry(NoBackoff(), 1),  # a stale connection is replaced at once; patience is the caller's
            )
        except ValueError as error:
            raise InvalidConfig(f"{self._shown} is not a Redis URL (redis://host:port/0): {error}") from error
        self._stream = stream
        self._group = "workers"
        self._consumer = consumer

    async def ping(self) -> None:
        """Asks whether Redis answers."""
        await self._ask(lambda: self._redis.ping())

    async def put(self, bodies: Sequence[str]) -> None:
        """Adds bodies at the end."""

        async def add() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                for body in bodies:
                    pipe.xadd(self._stream, {"body": body})
                await pipe.execute()

        if bodies:
            await self._ask(add)

    async def take(self, count: int, *, wait_seconds: float) -> list[Delivery]:
        """At most `count` bodies that no consumer has had, waiting up to `wait_seconds` for the first."""
        block = max(1, int(wait_seconds * 1000))
        answer = await self._ask(
            lambda: self._redis.xreadgroup(self._group, self._consumer, {self._stream: ">"}, count=count, block=block)
        )
        return [Delivery(message_id, fields["body"]) for _, entries in answer or () for message_id, fields in entries]

    async def take_idle(self, count: int, *, idle_seconds: float) -> list[Delivery]:
        """Claims at most `count` bodies whose consumer gave no sign for `idle_seconds`."""
        idle = int(idle_seconds * 1000)
        pending = await self._ask(
            lambda: self._redis.xpending_range(self._stream, self._group, min="-", max="+", count=count, idle=idle)
        )
        owners = {entry["message_id"]: entry["consumer"] for entry in pending}
        if not owners:
            return []
        claimed = await self._ask(
            lambda: self._redis.xclaim(self._stream, self._group, self._consumer, idle, list(owners))
        )
        return [Delivery(message_id, fields["body"], owners[message_id]) for message_id, fields in claimed if fields]

    async def renew(self, message_ids: Sequence[str]) -> None:
        """Gives a sign of life for what this consumer has under way."""
        if message_ids:
            await self._ask(
                lambda: self._redis.xclaim(self._stream, self._group, self._consumer, 0, list(message_ids), justid=True)
            )

    async def done(self, message_ids: Sequence[str]) -> None:
        """Takes bodies off the stream for good; those that are gone already do no harm."""

        async def remove() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, self._group, *message_ids)
                pipe.xdel(self._stream, *message_ids)
                await pipe.execute()

        if message_ids:
            await self._ask(remove)

    async def bodies(self) -> set[str]:
        """Every body in the stream, under way or not."""
        found: set[str] = set()
        start = "-"
        while True:
            page = await self._ask(partial(self._redis.xrange, self._stream, min=start, count=_PAGE))
            found.update(fields["body"] for _, fields in page)
            if len(page) < _PAGE:
                return found
            start = f"({page[-1][0]}"

    async def depth(self) -> Depth:
        """How full the queue is now."""
        length = await self._ask(lambda: self._redis.xlen(self._stream))
        pending = await self._ask(lambda: self._redis.xpending(self._stream, self._group))
        under_way = int(pending["pending"])
        return Depth(waiting=max(0, int(length) - under_way), under_way=under_way)

    async def forget(self) -> None:
        """Removes this consumer from the group, unless it has something under way: that is for others to claim."""
        pending = await self._ask(
            lambda: self._redis.xpending_range(
                self._stream, self._group, min="-", max="+", count=1, consumername=self._consumer
            )
        )
        if not pending:
            await self._ask(lambda: self._redis.xgroup_delconsumer(self._stream, self._group, self._consumer))

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """One command. A group that is not there (first use, or a wiped Redis) is made, and the command sent again."""
        try:
            try:
                return await _cancellable(call)
            except ResponseError as error:
                if not _group_is_missing(error):
                    raise
                await self._make_group()
                return await _cancellable(call)
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise Unavailable(
                f"Redis at {self._shown} does not answer ({type(error).__name__}: {error}); "
                "start it, or set SEAL_CONTROLLER_REDIS_URL"
            ) from error
        except RedisError as error:
            raise Unavailable(f"Redis at {self._shown} refuses: {error}") from error

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


async def _cancellable(call: Callable[[], Awaitable[Any]]) -> Any:
    """Python 3.11's `wait_for`, which redis-py uses, can swallow a cancellation that comes together with the answer; a
    consumer's loop would then go on for ever."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    answer = await call()
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


def _group_is_missing(error: ResponseError) -> bool:
    text = str(error)
    return "NOGROUP" in text or "requires the key to exist" in text


def without_password(url: str) -> str:
    """A URL as it may be shown: without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
