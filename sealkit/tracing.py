"""Traces: from the call that made a run, through the queue, to every stage of every trial and every call of a service.
Off unless SEAL_TRACES_ENDPOINT says where they go; then nothing is imported, and a span costs a look at a variable.

Between processes a place in a trace is a W3C traceparent. A run's row and a queue entry carry one as their `trace`,
followed by those of later calls or earlier tries, separated by spaces: the first is the parent, the others are links.

What a span tells: names, numbers, codes. Never a text, a key, or an error's message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sealkit.errors import InvalidConfig

if TYPE_CHECKING:
    from sealkit.otel import OpenTelemetry

Kind = Literal["internal", "client", "server", "consumer", "producer"]
Attributes = Mapping[str, str | int | float | bool]

_STOP_SECONDS = 2.0
"""How long a process that ends waits for its last spans to be taken."""
_LINKS = 8
_OFF: AbstractContextManager[str] = nullcontext("")
_on: OpenTelemetry | None = None


def _url(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is not an http(s) URL")
    return value


class TracingSettings(BaseSettings):
    """SEAL_TRACES_* in the environment, the same for every process."""

    model_config = SettingsConfigDict(env_prefix="SEAL_TRACES_", frozen=True, extra="ignore")

    endpoint: Annotated[str, AfterValidator(_url)] = ""
    """OTLP over HTTP: `http://collector:4318`; empty: off. Headers come from OTEL_EXPORTER_OTLP_HEADERS."""
    ratio: float = Field(1.0, ge=0, le=1)
    """Share of the traces that are kept. Decided where a trace begins: a run is traced as a whole, or not at all."""


def start_tracing(service: str, settings: TracingSettings) -> Callable[[], None]:
    """Turns tracing on in this process, where the settings say so; returns what sends the last spans and turns it off.
    Spans go out in a thread of their own: an endpoint that is away costs them, and nothing else. Raises InvalidConfig
    where OpenTelemetry is not installed."""
    global _on
    if not settings.endpoint:
        return lambda: None
    try:
        from sealkit.otel import OpenTelemetry
    except ImportError as error:
        raise InvalidConfig(
            f"SEAL_TRACES_ENDPOINT is set, and {error.name} is not installed: pip install 'seal-suite[tracing]'"
        ) from error
    on = _on = OpenTelemetry(service, settings.endpoint, settings.ratio)

    def stop() -> None:
        global _on
        _on = None
        last = threading.Thread(target=on.close, daemon=True)
        last.start()
        last.join(_STOP_SECONDS)

    return stop


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
