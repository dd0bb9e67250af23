"""Paths in the data folder, and the state file that lists what runs there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sealkit.errors import FailedPrecondition, InvalidInput
from sealkit.stack_file import StackState

CONTROLLER = "controller"
_LONGEST_SOCKET_PATH = 100
"""The kernel takes 104 (macOS) or 108 (Linux) bytes, with the terminating zero."""
_SHORT = Path("/tmp")
"""Where a socket is whose path would be too long. Not TMPDIR, which differs between two shells."""


@dataclass(frozen=True)
class Layout:
    """The data folder (absolute). Nothing is written outside it, except a socket whose path would be too long."""

    data: Path

    @classmethod
    def at(cls, data: Path) -> Layout:
        """The layout of `data`, which need not exist. Raises InvalidInput if the path itself cannot be followed."""
        try:
            return cls(data.expanduser().resolve())
        except (OSError, RuntimeError) as error:  # a loop of links; a home folder of nobody
            raise InvalidInput(
                f"the data folder {data} is not a path here ({error}); choose another with --data"
            ) from error

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
    def verdicts(self) -> Path:
        """The cache of the judge `model`."""
        return self.data / "judge.db"

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
        return _SHORT / f"seal-{os.getuid()}-{folder}" / "valkey.sock"

    @property
    def state_file(self) -> Path:
        return self.data / "stack.json"

    def log(self, name: str) -> Path:
        """The log of one service."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Creates the folders, for this user only. Raises FailedPrecondition if that fails, if they cannot be written,
        and if another user could replace the socket."""
        with self._usable():
            for folder in (self.data, self.logs, self.store, self.valkey, self.socket.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
            # Containers under another user mount this one.
            self.models.mkdir(exist_ok=True, mode=0o755)
        if self.socket.parent != self.valkey:
            self._check_socket_folder()

    def _check_socket_folder(self) -> None:
        """In /tmp another user may have made the folder first."""
        folder = self.socket.parent
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise FailedPrecondition(
                f"{folder} must be a folder of this user with mode 700, because it holds the socket of {self.data}; "
                "remove it, or choose a shorter path with --data"
            )

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turns what the operating system refuses in the data folder into an error that says what to do."""
        try:
            yield
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            way = "free some disk space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
            raise FailedPrecondition(
                f"the data folder {self.data} cannot be used ({what}); {way} another with --data"
            ) from error

    def exists(self) -> bool:
        """Whether there is a data folder. Raises FailedPrecondition if another kind of file is in its place."""
        with self._usable():
            try:
                kind = self.data.stat().st_mode
            except FileNotFoundError:
                return False
            if not stat.S_ISDIR(kind):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.data))
            return True

    def read_state(self) -> StackState | None:
        """What was started here, or None. Raises FailedPrecondition if the file is not a stack's state."""
        with self._usable():
            try:
                return StackState.model_validate_json(self.state_file.read_bytes())
            except FileNotFoundError:
                return None
            except ValidationError as error:
                raise FailedPrecondition(
                    f"{self.state_file} is not a valid state file of a stack; stop what still runs, then remove it"
                ) from error

    def write_state(self, state: StackState) -> None:
        """Replaces the file atomically: a reader sees the old or the new one. Raises FailedPrecondition."""
        scratch = self.state_file.with_suffix(".partial")
        with self._usable():
            scratch.write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
            scratch.replace(self.state_file)

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One `seal up` or `seal down` at a time. The kernel releases the lock when its holder dies, for any reason.
        Raises FailedPrecondition if the folder cannot be written."""
        with self._usable():
            handle = (self.data / "lock").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
