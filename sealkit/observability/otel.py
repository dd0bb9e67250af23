"""The spans of `tracing`, by OpenTelemetry, sent by OTLP over HTTP. Imported only if tracing is on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sealkit.errors import SealError
from sealkit.observability.tracing import Attributes, Kind

log = structlog.get_logger(__name__)

_EXPORT_SECONDS = 5
_around: ContextVar[Span | None] = ContextVar("span", default=None)
_READER = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Tracing of one process."""

    def __init__(self, service: str, endpoint: str, ratio: float) -> None:
        # It would log every lost batch and span; `_Exporter` logs the first.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        name = {"service.name": f"seal-{service}", "service.instance.id": f"{socket.gethostname()}-{os.getpid()}"}
        sampler = ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(sampler=sampler, resource=Resource.create(name), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(endpoint)))
        self._tracer = self._provider.get_tracer("sealkit")

    def close(self) -> None:
        """Sends the remaining spans; blocks."""
        self._provider.shutdown()

    @contextmanager
    def span(
        self,
        name: str,
        kind: Kind,
        trace: str = "",
        *,
        begins: bool,
        attributes: Attributes | None,
        enter: bool = True,
    ) -> Iterator[str]:
        """See `tracing.span` and, with `enter` off, `tracing.call`."""
        places = _places(trace)
        parent = places[0] if places else _around.get()
        if parent is None and not begins:
            yield ""
            return
        made = self._tracer.start_span(
            name,
            context=_within(parent),
            kind=SpanKind[kind.upper()],
            links=[Link(place.get_span_context()) for place in places[1:]],
            attributes={**_ids(), **(attributes or {})},
        )
        token = _around.set(made) if enter else None
        try:
            yield _traceparent(made.get_span_context())
        except BaseException as error:
            _fail(made, error)
            raise
        finally:
            made.end()
            if token is not None:
                with suppress(ValueError):  # a stream that its reader left is closed in another context
                    _around.reset(token)

    def past(self, name: str, began: float, ended: float) -> None:
        """See `tracing.past`."""
        if (around := _around.get()) is None:
            return
        zero = time.time() - time.monotonic()
        context, start = _within(around), int((zero + began) * 1e9)
        self._tracer.start_span(name, context, start_time=start, attributes=_ids()).end(int((zero + ended) * 1e9))

    def note(self, attributes: Attributes) -> None:
        """See `tracing.note`."""
        if (around := _around.get()) is not None:
            around.set_attributes(dict(attributes))

    def current(self) -> str:
        """See `tracing.current`."""
        return _traceparent(around.get_span_context()) if (around := _around.get()) is not None else ""

    def log_ids(self) -> Mapping[str, str]:
        """See `tracing.log_ids`."""
        if (around := _around.get()) is None:
            return {}
        context = around.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class _Exporter(SpanExporter):
    """OTLP over HTTP; logs one line when the collector stops accepting spans, and one when it accepts them again."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        url = endpoint.rstrip("/").removesuffix("/v1/traces") + "/v1/traces"
        self._inner = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_SECONDS)
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("traces not accepted; dropping them", endpoint=self._endpoint)
        elif self._failing and not failing:
            log.info("traces accepted again", endpoint=self._endpoint)
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


def _fail(made: Span, error: BaseException) -> None:
    """Records the error code that ended the block. A cancelled call is not an error."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        made.set_attribute("seal.cancelled", True)
        return
    code = error.reason if isinstance(error, SealError) else type(error).__name__
    made.set_attribute("error.type", code)
    made.set_status(StatusCode.ERROR, code)


def _ids() -> dict[str, str]:
    """The bound run and trial ids."""
    bound = structlog.contextvars.get_contextvars()
    return {f"seal.{key}": str(bound[key]) for key in ("run", "trial") if key in bound}


def _within(parent: Span | None) -> Context:
    return Context() if parent is None else set_span_in_context(parent, Context())


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _places(trace: str) -> list[Span]:
    """The span contexts of the traceparents; invalid ones are skipped (https://www.w3.org/TR/trace-context/)."""
    found = (get_current_span(_READER.extract({"traceparent": one}, Context())) for one in trace.split())
    return [place for place in found if place.get_span_context().is_valid]
