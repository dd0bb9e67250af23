"""Traces: from the call that created a run, through the queue, to every stage of every trial and every service call.
Off unless SEAL_TRACES_ENDPOINT is set; when off, nothing is imported, and a span costs one variable lookup.

Between processes the span context is a W3C traceparent. A run's row and a queue entry store one as their `trace`,
followed by those of later calls or earlier attempts, separated by spaces: the first is the parent, the others are
links.

Span attributes are names, numbers and codes; never texts, keys or error messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Kind = Literal["internal", "client", "server", "consumer", "producer"]
Attributes = Mapping[str, str | int | float | bool]

_LINKS = 8
_OFF: AbstractContextManager[str] = nullcontext("")


class Tracer(Protocol):
    """The tracer of a process in which tracing is on; its methods are those of this module."""

    def span(
        self,
        name: str,
        kind: Kind,
        trace: str = "",
        *,
        begins: bool,
        attributes: Attributes | None,
        enter: bool = True,
    ) -> AbstractContextManager[str]: ...

    def past(self, name: str, began: float, ended: float) -> None: ...

    def note(self, attributes: Attributes) -> None: ...

    def current(self) -> str: ...

    def log_ids(self) -> Mapping[str, str]: ...


_on: Tracer | None = None


def switch(tracer: Tracer | None) -> None:
    """Sets the tracer; None turns tracing off."""
    global _on
    _on = tracer


def span(
    name: str, *, kind: Kind = "internal", trace: str = "", begins: bool = True, attributes: Attributes | None = None
) -> AbstractContextManager[str]:
    """A span around a block, the current one inside it; yields its traceparent, empty if nothing is traced. Its parent
    is the first of `trace`, or else the current span; without one it begins a trace, unless `begins` is off."""
    if _on is None:
        return _OFF
    return _on.span(name, kind, trace, begins=begins, attributes=attributes)


def call(name: str, attributes: Attributes | None = None) -> AbstractContextManager[str]:
    """A span for a call to another process, if there is a current span. It does not become the current span: the block
    may be a generator's, and its consumer's own work would then be inside the span."""
    if _on is None:
        return _OFF
    return _on.span(name, "client", begins=False, attributes=attributes, enter=False)


def past(name: str, began: float, ended: float) -> None:
    """A span of the past, under the current span; times by `time.monotonic`."""
    if _on is not None:
        _on.past(name, began, ended)


def note(attributes: Attributes) -> None:
    """Adds attributes to the current span."""
    if _on is not None:
        _on.note(attributes)


def current() -> str:
    """The traceparent of the current span; empty if nothing is traced."""
    return _on.current() if _on is not None else ""


def log_ids() -> Mapping[str, str]:
    """The current span's ids, for a log line."""
    return _on.log_ids() if _on is not None else {}


def followed_by(trace: str, later: str) -> str:
    """`trace` with one more link; the oldest links are dropped."""
    first, *links = [*trace.split(), *later.split()] or [""]
    return " ".join([first, *links[-_LINKS:]])
