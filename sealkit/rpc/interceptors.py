"""What happens around every call of our services, so that handlers stay short: ids bound to the log, the request
checked, errors turned into a rich Status, the call counted.

Handlers are `async def` (unary-unary) or async generators (unary-stream) and raise `sealkit.errors`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
import protovalidate
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status

from sealkit.errors import InvalidInput, SealError, Unavailable
from sealkit.rpc import correlation
from sealkit.rpc.authority import CALLER, Authority, Everyone, names_in
from sealkit.rpc.status import code_of, status_of
from sealkit.telemetry import GRPC_REQUESTS, GRPC_SECONDS

log = structlog.get_logger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def check(message: Message) -> None:
    """Checks a message against its proto's rules. Raises InvalidInput with the path of every faulty field."""
    fields = tuple((_path(v.proto.field), v.proto.message) for v in protovalidate.collect_violations(message))
    if fields:
        first = "; ".join(f"{path}: {description}" for path, description in fields[:5])
        more = f"; and {len(fields) - 5} more faulty fields" if len(fields) > 5 else ""
        raise InvalidInput(f"{type(message).__name__}: {first}{more}", fields=fields)


def _path(field: Any) -> str:
    """A protovalidate FieldPath as a person writes it: `spec.examples[3].text`, `labels["x"]`; a rule on the whole
    message has no path."""
    parts = []
    for element in field.elements if field else ():
        key = element.subscript.value if element.subscript else None
        quoted = f'"{key}"' if isinstance(key, str) else key
        parts.append(element.field_name + (f"[{quoted}]" if key is not None else ""))
    return ".".join(parts)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of the services in `full_names`; health and reflection pass as they are."""

    def __init__(self, full_names: tuple[str, ...], authority: Authority | None = None) -> None:
        self._full_names = full_names
        self._authority = authority or Everyone()
        self.ready = False
        """Whether calls are let in: not before the service has started."""

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
        inner: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def unary(request: Message, context: Context) -> Any:
            async with self._around(method, request, context):
                return await inner(request, context)

        async def stream(request: Message, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, request, context), aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

        make, wrapped = (
            (grpc.unary_stream_rpc_method_handler, stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, unary)
        )
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _around(self, method: str, request: Message, context: Context) -> AsyncIterator[None]:
        started, code = time.perf_counter(), grpc.StatusCode.OK
        try:
            CALLER.set(self._authority.admit(method, names_in(context.auth_context()), _token(context)))
            if not self.ready:
                raise Unavailable(f"{method.split('/')[1]} is still starting", retry_after=1)
            check(request)
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except SealError as error:
            code = code_of(type(error))
            log.info("call refused", method=method, code=code.name, reason=error.reason, error=error.message)
            await _abort(context, error)
        except Exception:
            code = grpc.StatusCode.INTERNAL
            error_id = uuid.uuid4().hex[:12]
            log.exception("internal error", method=method, error_id=error_id)
            await _abort(context, SealError(f"internal error {error_id}; the service's log tells more"))
        finally:
            GRPC_REQUESTS.labels(method, code.name).inc()
            GRPC_SECONDS.labels(method).observe(time.perf_counter() - started)


def _token(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value.startswith("Bearer "):
            return value.removeprefix("Bearer ")
    return ""


async def _abort(context: Context, error: SealError) -> None:
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
