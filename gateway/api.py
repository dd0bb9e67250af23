"""The routes of the API. A request calls the controller with its caller's token; nothing is kept between requests."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing

import structlog
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.connection import EventStream, read_body, unless_disconnected
from gateway.errors import ApiError, from_seal, from_validation
from gateway.merging import merged
from gateway.replies import DONE, Reply, event
from gateway.requests import ChatRequest, CompletionRequest, alias_of
from gateway.settings import GatewaySettings
from sealkit.answers import Answer, Gathered
from sealkit.client import AsyncSealClient
from sealkit.concurrency import gather_or_cancel
from sealkit.errors import SealError
from sealkit.names import BASE_MODEL, id_of
from sealkit.resources import Alias, AnswerAbout, AnswerBegun, AnswerUpdate
from sealkit.types import AnswerEnd

log = structlog.get_logger(__name__)

Updates = AsyncGenerator[AnswerUpdate, None]


class Api:
    """`caller`: the controller, called on behalf of a request's caller; `now`: seconds since 1970."""

    def __init__(
        self,
        settings: GatewaySettings,
        caller: Callable[[Request], AsyncSealClient],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._caller = caller
        self._now = now

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: the base model and the caller's aliases."""
        try:
            found = [_model(alias) async for alias in self._aliases(self._caller(request))]
        except SealError as error:
            raise from_seal(error, "model") from error
        return JSONResponse({"object": "list", "data": [_BASE, *found]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        name, caller = str(request.path_params["model"]), self._caller(request)
        try:
            if name == BASE_MODEL:
                await caller.whoami()
                return JSONResponse(_BASE)
            return JSONResponse(_model(await caller.get_alias(alias_of(name))) | {"id": name})
        except SealError as error:
            raise from_seal(error, "model") from error

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        return await self._answer(request, ChatRequest, "messages")

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        return await self._answer(request, CompletionRequest, "prompt")

    async def _answer(
        self, request: Request, kind: type[ChatRequest] | type[CompletionRequest], text_param: str
    ) -> Response:
        caller, settings = self._caller(request), self._settings
        body = await read_body(request, most=settings.max_body_bytes, seconds=settings.idle_seconds)
        try:
            asked = kind.model_validate_json(body)
        except ValidationError as error:
            raise from_validation(error) from error
        alias, sampling = asked.alias, asked.sampling(settings.max_tokens)
        try:
            async with AsyncExitStack() as to_close:
                streams = [caller.stream_answer(alias, prompt, sampling) for prompt in asked.prompts]
                for stream in streams:
                    to_close.push_async_callback(stream.aclose)
                begun = await unless_disconnected(request, gather_or_cancel(*map(_begin, streams)))
                reply = Reply(chat=kind is ChatRequest, model=asked.model, created=int(self._now()), begun=begun[0])
                headers = {"Seal-Policy": reply.begun.policy} if reply.begun.policy else {}
                if asked.stream:
                    events = _events(reply, streams, shows_usage=asked.shows_usage, text_param=text_param)
                    seconds = settings.idle_seconds
                    return EventStream(events, seconds=seconds, headers=headers, to_close=to_close.pop_all())
                work = gather_or_cancel(*map(_gather, begun, streams))
                return JSONResponse(reply.whole(await unless_disconnected(request, work)), headers=headers)
        except SealError as error:
            raise from_seal(error, text_param) from error

    async def _aliases(self, caller: AsyncSealClient) -> AsyncIterator[Alias]:
        """Those that the caller can ask: an admin who acts for no tenant is shown all tenants' by the controller."""
        tenant = (await caller.whoami()).tenant
        async for alias in caller.list_aliases():
            if alias.tenant == tenant:
                yield alias


_BASE = {"id": BASE_MODEL, "object": "model", "created": 0, "owned_by": "seal"}


def _model(alias: Alias) -> dict[str, object]:
    name = id_of(alias.name)
    created = int(alias.history[0].time.timestamp()) if alias.history else 0
    return {
        "id": alias.name if name == BASE_MODEL else name,
        "object": "model",
        "created": created,
        "owned_by": alias.tenant or "seal",
    }


async def _begin(stream: Updates) -> AnswerBegun:
    """Who answers: an error up to here still has a status of its own."""
    async for update in stream:
        if isinstance(update, AnswerBegun):
            return update
    raise ApiError(503, "the controller ended the answer before it began", code="unavailable", retry_after=1)


async def _gather(begun: AnswerBegun, stream: Updates) -> Answer:
    gathered = Gathered()
    gathered.add(begun)
    async for update in stream:
        gathered.add(update)
    return gathered.answer


async def _events(
    reply: Reply, streams: Sequence[Updates], *, shows_usage: bool, text_param: str
) -> AsyncGenerator[bytes, None]:
    """The events of a response, as bytes. An error in the middle is an event too, and then `[DONE]` is missing."""
    used = []
    try:
        for chunk in reply.first():
            yield event(chunk)
        async with aclosing(_merged(streams)) as updates:
            async for index, update in updates:
                if isinstance(update, AnswerBegun | AnswerAbout):
                    continue
                yield event(reply.piece(index, update))
                if isinstance(update, AnswerEnd):
                    used.append(update.usage)
        if shows_usage:
            yield event(reply.usage(used))
        yield DONE
    except SealError as error:
        log.info("stream broke", reason=error.reason, error=error.message)
        yield event(from_seal(error, text_param).body)


async def _merged(streams: Sequence[Updates]) -> AsyncGenerator[tuple[int, AnswerUpdate], None]:
    """The updates of all streams as they come. The first error ends all; so does closing this."""
    if len(streams) == 1:  # without tasks in between
        async with aclosing(streams[0]) as stream:
            async for update in stream:
                yield 0, update
        return
    async with aclosing(merged(streams, most=len(streams))) as batches:
        async for batch in batches:
            for one in batch:
                yield one
