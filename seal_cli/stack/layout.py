"""Paths in the data folder, and the state file that lists what runs there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sealkit.errors import FailedPrecondition
from sealkit.stack_file import StackState

CONTROLLER = "controller"
_LONGEST_SOCKET_PATH = 100
"""The kernel takes 104 (macOS) or 108 (Linux) bytes, with the terminating zero."""


@dataclass(frozen=True)
class Layout:
    """The data folder (absolute). Nothing is written outside it, except a socket whose path would be too long."""

    data: Path

    @classmethod
    def at(cls, data: Path) -> Layout:
        """The layout of `data`, which need not exist."""
        return cls(data.expanduser().resolve())

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def store(self) -> Path:
        return self.data / "store"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def database(self) -> Path:
        return self.data / "seal.db"

    @property
    def valkey(self) -> Path:
        return self.data / "valkey"

    @property
    def socket(self) -> Path:
        """Valkey's Unix socket: only this user can open it, and it needs no port."""
        path = self.valkey / "valkey.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        folder = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"seal-{os.getuid()}-{folder}" / "valkey.sock"

    @property
    def state_file(self) -> Path:
        return self.data / "stack.json"

    def log(self, name: str) -> Path:
        """The log of one service."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Creates the folders, for this user only. Raises FailedPrecondition if that fails."""
        try:
            for folder in (self.data, self.logs, self.store, self.valkey, self.socket.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Containers under another user mount this one.
            self.models.mkdir(exist_ok=True, mode=0o755)
        except OSError as error:
            raise FailedPrecondition(
                f"the data folder {self.data} cannot be created ({error.strerror}); choose another with --data"
            ) from error

    def read_state(self) -> StackState | None:
        """What was started here, or None. Raises FailedPrecondition if the file is not a stack's state."""
        try:
            return StackState.model_validate_json(self.state_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise FailedPrecondition(
                f"{self.state_file} is not a valid state file of a stack; stop what still runs, then remove it"
            ) from error

    def write_state(self, state: StackState) -> None:
        """Replaces the file atomically: a reader sees the old or the new one."""
        scratch = self.state_file.with_suffix(".partial")
        scratch.write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
        scratch.replace(self.state_file)

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One `seal up` or `seal down` at a time. The kernel releases the lock when its holder dies, for any reason."""
        with (self.data / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
