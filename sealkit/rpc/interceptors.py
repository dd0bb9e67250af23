"""The server interceptor around every call, so that handlers stay short: binds ids to the log, authenticates and
authorizes the caller, validates the request, turns errors into a rich Status, counts the call, logs refused callers.

Handlers are `async def` (unary-unary, and stream-unary, which get an async iterable of messages) or async generators
(unary-stream) and raise `sealkit.errors`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import grpc
import protovalidate
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from sealkit.callers import CALLER, STRANGER, reads
from sealkit.errors import InvalidInput, ResourceExhausted, SealError, Unavailable
from sealkit.observability import tracing
from sealkit.observability.metrics import CALLERS_REFUSED, GRPC_REQUESTS, GRPC_SECONDS
from sealkit.rpc import correlation
from sealkit.rpc.authority import TENANT_KEY, Authority, Everyone, names_in
from sealkit.rpc.status import grpc_code_of, status_of

log = structlog.get_logger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_TRACEPARENT_LENGTH = 55
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_BIG = 64 * 1024
"""Requests from this many bytes on are validated in a thread: at 64 MiB it takes seconds, which would block other
calls."""


@dataclass(frozen=True, slots=True)
class _Malformed:
    """A request that could not be parsed."""

    why: str


class _Parts:
    """The messages of a client's stream, each one checked as it is read; `first` is empty until then."""

    def __init__(self, method: str, messages: AsyncIterator[Message | _Malformed]) -> None:
        self.first: Message = Empty()
        self._method = method
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in self._messages:
            read = await _checked(self._method, message)
            if isinstance(self.first, Empty):
                self.first = read
            yield read


_Request: TypeAlias = "Message | _Malformed | _Parts"


@runtime_checkable
class Remembers(Protocol):
    """A service that records calls that it refused to known callers."""

    async def refused(self, method: str, request: Message, error: SealError) -> None:
        """Called before the error is sent; the caller is in `CALLER`. Raises nothing."""
        ...


def check(message: Message) -> None:
    """Validates a message against its proto's rules. Raises InvalidInput with the path of every faulty field."""
    fields = tuple((_path(v.proto.field), v.proto.message) for v in protovalidate.collect_violations(message))
    if fields:
        first = "; ".join(f"{path}: {description}" for path, description in fields[:5])
        more = f"; and {len(fields) - 5} more faulty fields" if len(fields) > 5 else ""
        raise InvalidInput(f"{type(message).__name__}: {first}{more}", fields=fields)


async def _checked(method: str, request: Message | _Malformed) -> Message:
    """The message, if it follows its proto's rules. Raises InvalidInput."""
    if isinstance(request, _Malformed):
        raise InvalidInput(f"the request of {method} cannot be read: {request.why}")
    if request.ByteSize() < _BIG:
        check(request)
    else:
        await asyncio.to_thread(check, request)
    return request


def _path(field: Any) -> str:
    """A protovalidate FieldPath as text: `spec.examples[3].text`, `labels["x"]`; a rule on the whole message has no
    path."""
    parts = []
    for element in field.elements if field else ():
        key = element.subscript.value if element.subscript else None
        quoted = f'"{key}"' if isinstance(key, str) else key
        parts.append(element.field_name + (f"[{quoted}]" if key is not None else ""))
    return ".".join(parts)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of the services in `full_names`; health and reflection are not wrapped. A caller may have
    `max_calls` concurrent calls, streams included, over all its connections."""

    def __init__(
        self,
        full_names: tuple[str, ...],
        authority: Authority | None = None,
        memory: Remembers | None = None,
        *,
        max_calls: int = 1000,
    ) -> None:
        self._full_names = full_names
        self._authority = authority or Everyone()
        self._memory = memory
        self._max_calls = max_calls
        self._under_way: Counter[str] = Counter()
        self.ready = False
        """Whether calls are accepted: not before the service has started."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        service, _, _ = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service not in self._full_names:
            return handler
        correlation.bind_from_metadata(handler_call_details.invocation_metadata)
        return self._wrap(handler, handler_call_details.method)

    def _wrap(self, handler: Handler, method: str) -> Handler:
        inner: Any = handler.unary_stream or handler.stream_unary or handler.unary_unary

        async def unary(request: Message, context: Context) -> Any:
            async with self._around(method, request, context):
                return await inner(request, context)

        async def stream(request: Message, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, request, context), aclosing(inner(request, context)) as responses:
                async for response in responses:
                    self._open(method, context)  # the caller may lose its permission during a stream
                    yield response

        async def parts(messages: AsyncIterator[Message | _Malformed], context: Context) -> Any:
            async with self._around(method, request := _Parts(method, messages), context):
                return await inner(request, context)

        make: Callable[..., Handler]
        wrapped: Any
        if handler.response_streaming:
            make, wrapped = grpc.unary_stream_rpc_method_handler, stream
        elif handler.request_streaming:
            make, wrapped = grpc.stream_unary_rpc_method_handler, parts
        else:
            make, wrapped = grpc.unary_unary_rpc_method_handler, unary
        return make(wrapped, _reader(handler.request_deserializer), handler.response_serializer)

    @asynccontextmanager
    async def _around(self, method: str, request: _Request, context: Context) -> AsyncIterator[None]:
        started, code = time.perf_counter(), grpc.StatusCode.OK
        CALLER.set(STRANGER)
        try:
            self._open(method, context)
            if not self.ready:
                raise Unavailable(f"{method.split('/')[1]} is still starting", retry_after=1)
            with self._counted(CALLER.get().name):
                if not isinstance(request, _Parts):
                    await _checked(method, request)
                with _span(method, context):
                    yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except SealError as error:
            code = grpc_code_of(type(error))
            log.info("call refused", method=method, code=code.name, reason=error.reason, error=error.message)
            await self._remember(method, request, error)
            await _abort(context, error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic of a library in Rust is no Exception, and gRPC would leave the caller waiting
            code = grpc.StatusCode.INTERNAL
            error_id = uuid.uuid4().hex[:12]
            log.exception("internal error", method=method, error_id=error_id)
            await _abort(context, SealError(f"internal error {error_id}; see the service's log"))
        finally:
            GRPC_REQUESTS.labels(method, code.name).inc()
            GRPC_SECONDS.labels(method).observe(time.perf_counter() - started)

    def _open(self, method: str, context: Context) -> None:
        """Authenticates and authorizes the caller and sets `CALLER`. Raises what the authority raises."""
        sent = _sent(context, "authorization")
        token = sent.removeprefix("Bearer ") if sent.startswith("Bearer ") else ""
        try:
            caller = self._authority.identify(names_in(context.auth_context()), token)
            CALLER.set(caller)
            CALLER.set(self._authority.permit(caller, method, _sent(context, TENANT_KEY)))
        except SealError as error:
            CALLERS_REFUSED.labels(error.reason).inc()
            who = {"caller": CALLER.get().name, "peer": context.peer(), "method": method}
            log.warning("caller refused", **who, reason=error.reason, error=error.message)
            raise

    @contextmanager
    def _counted(self, caller: str) -> Iterator[None]:
        if self._under_way[caller] >= self._max_calls:
            raise ResourceExhausted(
                f"{caller} has {self._max_calls} calls in progress, the limit for one caller; end some, or wait",
                retry_after=1,
            )
        self._under_way[caller] += 1
        try:
            yield
        finally:
            self._under_way[caller] -= 1

    async def _remember(self, method: str, request: _Request, error: SealError) -> None:
        request = request.first if isinstance(request, _Parts) else request
        if self._memory is not None and self.ready and CALLER.get() != STRANGER and isinstance(request, Message):
            await self._memory.refused(method, request, error)


def _reader(read: Callable[[bytes], Message] | None) -> Callable[[bytes], Message | _Malformed] | None:
    """The deserializer, wrapped to return its error: gRPC would answer UNKNOWN if it raised."""

    def reading(data: bytes) -> Message | _Malformed:
        assert read is not None
        try:
            return read(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return reading if read else None


def _sent(context: Context, header: str) -> str:
    found = (value for key, value in context.invocation_metadata() or () if key == header)
    return next((value for value in found if isinstance(value, str)), "")


def _span(method: str, context: Context) -> AbstractContextManager[str]:
    """The call's span, under the caller's. A read-only call begins no trace."""
    service, _, action = method.lstrip("/").partition("/")
    about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": action}
    place = _sent(context, correlation.TRACEPARENT)[:_TRACEPARENT_LENGTH]
    return tracing.span(f"{service}/{action}", kind="server", trace=place, begins=not reads(action), attributes=about)


async def _abort(context: Context, error: SealError) -> None:
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
