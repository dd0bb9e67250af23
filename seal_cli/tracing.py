"""Traces that begin at a command, if SEAL_TRACES_ENDPOINT is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from sealkit.errors import InvalidConfig, SealError
from sealkit.observability.start import TracingSettings, start_tracing


@contextmanager
def traced() -> Iterator[None]:
    """Tracing for a command; its last spans are sent before it exits. Invalid settings are reported like any bad
    input."""
    from seal_cli.console import fail
    from sealkit.rpc.settings import explain

    try:
        stop = start_tracing("cli", TracingSettings())
    except ValidationError as error:
        raise SystemExit(fail(InvalidConfig(explain(error)))) from error
    except SealError as error:
        raise SystemExit(fail(error)) from error
    try:
        yield
    finally:
        stop()
