"""Retries while a dependency is unavailable: an outage costs time, not results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import structlog

from controller import waits
from sealkit.errors import Cancelled, DeadlineExceeded, QueueFull, Unavailable
from sealkit.types import Progress, TrainingResult

log = structlog.get_logger(__name__)

T = TypeVar("T")

AWAY = (Unavailable, QueueFull, Cancelled)
"""Not now: it does not answer, has no room, or went down in the middle of the call."""
_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0
_DEADLINES = 3


def backoff() -> Iterator[float]:
    """Seconds to wait before the next try: doubled each time, up to a limit."""
    seconds = _FIRST_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, _LONGEST_SECONDS)


async def retry_until_available(call: Callable[[], Awaitable[T]], *, doing: str) -> T:
    """Retries `call` while a dependency is unavailable, after RetryInfo's delay if the error has one.

    A long wait is reported to the watchers of the current run. Raises every other error of `call`; DeadlineExceeded the
    third time, because some work never finishes in time.
    """
    deadlines, pause, waiting = 0, backoff(), False
    try:
        while True:
            try:
                answer = await call()
                break
            except (*AWAY, DeadlineExceeded) as error:
                deadlines += isinstance(error, DeadlineExceeded)
                if deadlines >= _DEADLINES:
                    raise
                seconds, waiting = error.retry_after or next(pause), True
                log.warning("waiting", doing=doing, reason=error.reason, message=error.message, seconds=seconds)
                await waits.failed(doing, error)
                await asyncio.sleep(seconds)
    except BaseException:
        waits.given_up(doing)
        raise
    if waiting:
        await waits.answered(doing)
    return answer


async def last(stream: AsyncIterator[T]) -> T | None:
    """The last item of a stream, which is read to its end; leaving it earlier would cancel the call."""
    found = None
    async for one in stream:
        found = one
    return found


async def training_result(updates: AsyncIterator[Progress | TrainingResult]) -> TrainingResult:
    """The result of a training, the last of its updates. Raises Unavailable if there is none."""
    result = await last(updates)
    if not isinstance(result, TrainingResult):
        raise Unavailable("the trainer ended the stream without a result")
    return result


async def gather_or_cancel(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Runs all concurrently; returns their results in order. The first failure cancels the others and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _stop(tasks)


async def run_with_background(work: Coroutine[Any, Any, T], *companions: Coroutine[Any, Any, None]) -> T:
    """Runs `work` to its end, together with background tasks that never end; if one fails, all are cancelled and its
    error is raised."""
    main = asyncio.create_task(work)
    beside = [asyncio.create_task(one) for one in companions]
    try:
        await asyncio.wait([main, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done():
                task.result()
        return await main
    finally:
        await _stop([main, *beside])


async def _stop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
