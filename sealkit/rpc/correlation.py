"""Propagation of run and trial ids and of the span context between processes: structlog's contextvars and
`sealkit.observability.tracing` on both sides, gRPC metadata in between."""

from __future__ import annotations

from collections.abc import Iterable

from structlog import contextvars

KEYS = {"run": "seal-run", "trial": "seal-trial"}
"""Name in the log → name in the metadata."""
TRACEPARENT = "traceparent"
"""W3C's name."""


def to_metadata(traceparent: str = "") -> tuple[tuple[str, str], ...]:
    """The bound ids and the call's traceparent, as metadata of an outgoing call."""
    bound = contextvars.get_contextvars()
    ids = tuple((header, str(bound[key])) for key, header in KEYS.items() if key in bound)
    return (*ids, (TRACEPARENT, traceparent)) if traceparent else ids


def bind_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
    """Binds the ids of an incoming call; an id is a resource name, so longer values are truncated."""
    sent = dict(metadata or ())
    found = {key: str(sent[header])[:256] for key, header in KEYS.items() if header in sent}
    contextvars.bind_contextvars(**found)
