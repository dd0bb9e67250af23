"""An OTLP receiver of one process: what spans were sent to it, over HTTP as a collector takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Sent:
    """A span as it came; ids in hexadecimal, `parent` empty for a root."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    seconds: float
    failed: bool


@dataclass
class Receiver:
    """`hold` keeps every request waiting until it is set."""

    url: str = ""
    spans: list[Sent] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    requests: int = 0
    hold: threading.Event | None = None

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Sent:
        (span,) = self.named(name)
        return span

    def above(self, span: Sent) -> list[str]:
        """Names from the span's parent to its root; a parent that never came is `?`."""
        by_id = {one.id: one for one in self.spans}
        found = []
        while span.parent:
            if span.parent not in by_id:
                return [*found, "?"]
            span = by_id[span.parent]
            found.append(span.name)
        return found

    def until(self, true: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"came so far: {sorted({span.name for span in self.spans})}"
            time.sleep(0.05)

    def take(self, body: bytes) -> None:
        self.requests += 1
        if self.hold is not None:
            self.hold.wait(60)
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            self.spans += [_sent(service, span) for scope in resource.scope_spans for span in scope.spans]


def _sent(service: str, span: Any) -> Sent:
    return Sent(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_values(span.attributes),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        failed=span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        server.server_close()
