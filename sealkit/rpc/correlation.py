"""Run and trial ids, carried from process to process: structlog's contextvars on either side, gRPC metadata between."""

from __future__ import annotations

from collections.abc import Iterable

from structlog import contextvars

KEYS = {"run": "seal-run", "trial": "seal-trial"}
"""Name in the log → name in the metadata."""


def to_metadata() -> tuple[tuple[str, str], ...]:
    """The ids bound here, for an outgoing call."""
    bound = contextvars.get_contextvars()
    return tuple((header, str(bound[key])) for key, header in KEYS.items() if key in bound)


def bind_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
    """Binds the ids of an incoming call; an id is a resource name, so whatever is longer than one is cut."""
    sent = dict(metadata or ())
    found = {key: str(sent[header])[:256] for key, header in KEYS.items() if header in sent}
    contextvars.bind_contextvars(**found)
