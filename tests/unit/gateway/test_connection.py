"""What a response does with its sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from gateway.connection import EventStream


async def test_a_client_that_does_not_even_read_the_headers_leaves_no_source_open() -> None:
    closed: list[str] = []

    async def answer() -> AsyncGenerator[bytes, None]:
        try:
            yield b"who answers"
            yield b"the answer"
        finally:
            closed.append("answer")

    async def events(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in source:
            yield piece

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    source, to_close = answer(), AsyncExitStack()
    to_close.push_async_callback(source.aclose)
    await anext(source)
    response = EventStream(events(source), seconds=0, to_close=to_close)
    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, never, never)
    assert closed == ["answer"]
