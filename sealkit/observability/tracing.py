"""Traces: from the call that made a run, through the queue, to every stage of every trial and every call of a service.
Off unless SEAL_TRACES_ENDPOINT says where they go; then nothing is imported, and a span costs a look at a variable.

Between processes a place in a trace is a W3C traceparent. A run's row and a queue entry carry one as their `trace`,
followed by those of later calls or earlier tries, separated by spaces: the first is the parent, the others are links.

What a span tells: names, numbers, codes. Never a text, a key, or an error's message.
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
    """What makes the spans of a process in which tracing is on; its methods are those of this module."""

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
    """Spans are made by `tracer` from now on; None: tracing is off."""
    global _on
    _on = tracer


def span(
    name: str, *, kind: Kind = "internal", trace: str = "", begins: bool = True, attributes: Attributes | None = None
) -> AbstractContextManager[str]:
    """A span around a block, to which belongs what happens in it; gives its traceparent, empty where nothing is traced.
    Its parent is the first of `trace`, else the span around; without one it begins a trace, unless told not to."""
    if _on is None:
        return _OFF
    return _on.span(name, kind, trace, begins=begins, attributes=attributes)


def call(name: str, attributes: Attributes | None = None) -> AbstractContextManager[str]:
    """A call of another process, where there is a span around. What happens in the block does not belong to it: the
    block may be a generator's, and its consumer's own work would."""
    if _on is None:
        return _OFF
    return _on.span(name, "client", begins=False, attributes=attributes, enter=False)


def past(name: str, began: float, ended: float) -> None:
    """A span of what is over, under the span around; times by `time.monotonic`."""
    if _on is not None:
        _on.past(name, began, ended)


def note(attributes: Attributes) -> None:
    """Adds to the span around."""
    if _on is not None:
        _on.note(attributes)


def current() -> str:
    """The traceparent of the span around; empty where nothing is traced."""
    return _on.current() if _on is not None else ""


def log_ids() -> Mapping[str, str]:
    """What a log line tells of the span around."""
    return _on.log_ids() if _on is not None else {}


def followed_by(trace: str, later: str) -> str:
    """What carries `trace` on, with one more link; the oldest links give way."""
    first, *links = [*trace.split(), *later.split()] or [""]
    return " ".join([first, *links[-_LINKS:]])
