"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from gateway.merging import merged


async def numbers(closed: list[str], name: str, *, fails_at: int = -1) -> AsyncGenerator[int, None]:
    try:
        for number in range(1000):
            if number == fails_at:
                raise ValueError(name)
            yield number
    finally:
        closed.append(name)


async def test_what_comes_is_taken_in_batches_and_closing_closes_all() -> None:
    closed: list[str] = []
    taken: dict[int, list[int]] = {0: [], 1: []}
    async with aclosing(merged([numbers(closed, "a"), numbers(closed, "b")], most=8)) as batches:
        async for batch in batches:
            assert 0 < len(batch) <= 8
            for place, number in batch:
                taken[place].append(number)
            if len(taken[0]) > 50:
                break
    assert sorted(closed) == ["a", "b"], "although both waited to be taken"
    assert all(found == list(range(len(found))) for found in taken.values())


async def test_the_first_error_ends_all_and_silence_is_told() -> None:
    closed: list[str] = []
    with pytest.raises(ValueError, match="bad"):
        async for _ in merged([numbers(closed, "good"), numbers(closed, "bad", fails_at=3)], most=4):
            pass
    assert sorted(closed) == ["bad", "good"]

    spoken = asyncio.Event()

    async def late() -> AsyncGenerator[str, None]:
        await spoken.wait()
        yield "late"

    found = []
    async for batch in merged([late()], most=4, seconds=0.001):
        found.append(batch)
        spoken.set()
    assert (found[0], found[-1]) == ([], [(0, "late")])
