"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from sealkit.concurrency import gather_or_cancel

T = TypeVar("T")


async def merged(
    streams: Sequence[AsyncGenerator[T, None]], *, most: int, seconds: float | None = None
) -> AsyncGenerator[list[tuple[int, T]], None]:
    """What the streams yield, with the number of the stream, as it comes, in batches of at most `most`; an empty batch
    whenever nothing came for `seconds`. The streams wait while `most` are not taken. The first error ends all; so does
    closing this."""
    found: asyncio.Queue[tuple[int, T] | None] = asyncio.Queue(maxsize=most)

    async def read(index: int, stream: AsyncGenerator[T, None]) -> None:
        async with aclosing(stream):
            async for item in stream:
                await found.put((index, item))

    async def read_all() -> None:
        try:
            await gather_or_cancel(*(read(index, stream) for index, stream in enumerate(streams)))
        finally:
            await found.put(None)

    reading = asyncio.ensure_future(read_all())
    try:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    one = await found.get()
            except TimeoutError:
                yield []
                continue
            batch = []
            while one is not None:
                batch.append(one)
                if found.empty() or len(batch) == most:
                    break
                one = found.get_nowait()
            if batch:
                yield batch
            if one is None:
                break
        await reading
    finally:
        reading.cancel()
        while not found.empty():  # else it could not put its end
            found.get_nowait()
        await asyncio.gather(reading, return_exceptions=True)
