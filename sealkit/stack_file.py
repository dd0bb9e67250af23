"""The state file of the embedded stack: which processes `seal up` started in a data folder.

`seal up` writes it before a process starts to work, and `seal down` removes it after all have ended. So a process that
it does not list is one that no command finds: the folder was removed, or another stack took its place. Such a process
ends, and Valkey, which cannot read the file, is ended by the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from sealkit.processes import Presence, ProcessStart, presence_of
from sealkit.types import Value

VALKEY = "valkey"
_LOOKS = 2
"""Looks in a row without an entry."""


class ServiceRecord(Value):
    """One started process: its pid and start identify it. `started`: when, in seconds since 1970, only to be shown."""

    name: str
    pid: int
    start: ProcessStart
    started: float
    address: str
    metrics: str = ""


class StackState(Value):
    """What `seal up` started. `model` is a folder, a file or a hub id."""

    model: str
    services: tuple[ServiceRecord, ...] = ()

    def find(self, name: str) -> ServiceRecord | None:
        """The entry of one service, if it was started."""
        return next((record for record in self.services if record.name == name), None)

    def having(self, record: ServiceRecord) -> StackState:
        """The same state with `record` in place of an older entry of that name."""
        others = tuple(known for known in self.services if known.name != record.name)
        return StackState(model=self.model, services=(*others, record))


async def unlisted(file: Path, *, every: float = 2.0) -> StackState | None:
    """Returns once the state file no longer lists this process, with the last state that did. A file that cannot be
    read (a network file system that is away) says nothing; a missing one does."""
    last, without = None, 0
    while without < _LOOKS:
        await asyncio.sleep(every)
        try:
            state = StackState.model_validate_json(await asyncio.to_thread(file.read_bytes))
        except FileNotFoundError:
            without += 1
        except (OSError, ValidationError):
            without = 0
        else:
            listed = any(record.pid == os.getpid() for record in state.services)
            last, without = (state, 0) if listed else (last, without + 1)
    return last


def end_valkey(state: StackState | None) -> None:
    """Stops the Valkey of a stack that no longer has a state file."""
    record = state.find(VALKEY) if state else None
    if record is not None and presence_of(record) is Presence.RUNNING:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
