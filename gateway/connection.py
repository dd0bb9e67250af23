"""What a client's connection does during a request: it sends a body, reads a stream, or disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import ApiError

log = structlog.get_logger(__name__)

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client closed its connection, so nobody reads the response."""


async def disconnected(_: Request, __: Exception) -> Response:
    """The response to ClientDisconnected, which only the metrics see."""
    return Response(status_code=499)


async def read_body(request: Request, *, most: int, seconds: float, kind: str = "application/json") -> bytes:
    """The body of a request. Raises ApiError if it is longer than `most` bytes or not there in time.

    Content types but `kind` are refused: a web page may send some to any address without asking, but not JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise ApiError(415, f"the content-type of a request is {kind}", code="unsupported_content_type")
    too_large = ApiError(413, f"a request has at most {most} bytes", code="request_too_large")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        message = f"the request was not complete after {seconds:g} s"
        raise ApiError(408, message, code="request_timeout", repeatable=False) from error
    return b"".join(parts)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client disconnects before. Raises ClientDisconnected then."""
    working = asyncio.ensure_future(work)
    disconnecting = asyncio.ensure_future(_disconnecting(request.receive))
    try:
        await asyncio.wait((working, disconnecting), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        return working.result()
    finally:
        working.cancel()
        disconnecting.cancel()
        await asyncio.gather(working, disconnecting, return_exceptions=True)


async def _disconnecting(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events. It ends if the client does not read for `seconds`. However it ends, the source is closed, and
    then what is in `to_close`: a source that was never read closes nothing itself."""

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        *,
        seconds: float,
        headers: dict[str, str] | None = None,
        to_close: AsyncExitStack | None = None,
    ) -> None:
        # A proxy that collects the events would deliver them at the end.
        super().__init__(source, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        self._source = source
        self._to_close = to_close or AsyncExitStack()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.info("stream ended: its client does not read")
        finally:
            async with self._to_close:
                await self._source.aclose()
