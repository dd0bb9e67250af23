"""Turns tracing on in a process, as configured by its environment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sealkit.errors import InvalidConfig
from sealkit.observability import tracing

_STOP_SECONDS = 2.0
"""Seconds that an ending process waits to send its last spans."""


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
    """Share of the traces that are sampled. Decided where a trace begins: a run is traced completely or not at all."""


def start_tracing(service: str, settings: TracingSettings) -> Callable[[], None]:
    """Turns tracing on in this process if the settings say so; returns the function that sends the last spans and turns
    it off. Spans are sent by a separate thread: an unreachable collector only loses spans. Raises InvalidConfig if
    OpenTelemetry is not installed."""
    if not settings.endpoint:
        return lambda: None
    try:
        from sealkit.observability.otel import OpenTelemetry
    except ImportError as error:
        raise InvalidConfig(
            f"SEAL_TRACES_ENDPOINT is set, but {error.name} is not installed: pip install 'seal-suite[tracing]'"
        ) from error
    on = OpenTelemetry(service, settings.endpoint, settings.ratio)
    tracing.switch(on)

    def stop() -> None:
        tracing.switch(None)
        last = threading.Thread(target=on.close, daemon=True)
        last.start()
        last.join(_STOP_SECONDS)

    return stop
