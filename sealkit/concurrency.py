"""asyncio helpers: work that ends together, and results computed once however many ask at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
async def gather_or_cancel(
    one: Coroutine[object, object, A], other: Coroutine[object, object, B], /
) -> tuple[A, B]: ...
@overload
async def gather_or_cancel(
    one: Coroutine[object, object, A],
    other: Coroutine[object, object, B],
    third: Coroutine[object, object, C],
    fourth: Coroutine[object, object, D],
    /,
) -> tuple[A, B, C, D]: ...
@overload
async def gather_or_cancel(*work: Coroutine[object, object, A]) -> tuple[A, ...]: ...
async def gather_or_cancel(*work: Coroutine[object, object, object]) -> tuple[object, ...]:
    """The results, in order. The first failure cancels the others, waits until they have ended, and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(eq=False)
class _InFlight(Generic[V]):
    task: asyncio.Task[V]
    waiting: int = 0


class SingleFlightCache(Generic[K, V]):
    """A least-recently-used cache of at most `limit`, measured by `weigh` (default: 1 per result), with single flight.
    Failures are not cached. For one event loop."""

    def __init__(self, limit: float, weigh: Callable[[V], float] = lambda _: 1.0) -> None:
        self._limit = limit
        self._weigh = weigh
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._weight = 0.0
        self._in_flight: dict[K, _InFlight[V]] = {}

    async def get(self, key: K, compute: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The result of `key`, and whether this call computed it. The computation continues while anyone waits for it,
        and is cancelled with its last waiter. Raises what `compute` raises, in every waiter."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key], False
        fresh = key not in self._in_flight
        if fresh:
            self._in_flight[key] = _InFlight(asyncio.ensure_future(self._compute(key, compute)))
        flight = self._in_flight[key]
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), fresh
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                self._in_flight.pop(key, None)

    def forget(self, key: K) -> None:
        """Drops a cached result."""
        if key in self._kept:
            self._weight -= self._weigh(self._kept.pop(key))

    async def _compute(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        me = asyncio.current_task()
        try:
            value = await compute()
        finally:
            if key in self._in_flight and self._in_flight[key].task is me:
                del self._in_flight[key]
        self._kept[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._weight -= self._weigh(dropped)
        return value
