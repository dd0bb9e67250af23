"""Starts and stops processes. Each is started in its own session, and recorded before it does anything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sealkit.processes import Identified, Presence, ProcessStart, presence_of, start_of

_POLL = 0.05
_KILL_SECONDS = 5.0
"""The kernel ends a killed process within this time, unless it hangs in a device."""
_START_ON_INPUT = ["/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "seal"]
"""Waits for a line on its input, then becomes the command, with the same pid and start; ends at the end of input."""

P = TypeVar("P", bound=Identified)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    record: Callable[[int, ProcessStart], None],
) -> None:
    """Starts `command` detached from this terminal, with its output in `log` (the previous log is kept beside it).

    It begins once `record` has returned. If that raises, or this process dies before, by whatever signal, the command
    never begins: no process exists that is not recorded.
    """
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*_START_ON_INPUT, *command],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert child.stdin is not None
    try:
        record(child.pid, start_of(child.pid))
        child.stdin.write(b"\n")
    finally:
        with suppress(BrokenPipeError):  # it was killed meanwhile, which is seen where it is waited for
            child.stdin.close()


def is_running(process: Identified) -> bool:
    """Whether this very process certainly still runs."""
    return presence_of(process) is Presence.RUNNING


def has_ended(process: Identified) -> bool:
    """Whether this very process certainly has ended."""
    return presence_of(process) is Presence.ENDED


def stop(processes: Iterable[P], grace: float) -> list[P]:
    """SIGTERM to all, `grace` seconds to drain, then SIGKILL to their whole sessions. Returns those that are not known
    to have ended: they must not be forgotten."""
    left = [process for process in processes if not has_ended(process)]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_SECONDS)):
        for process in left:
            _signal(process, number)
        deadline = time.monotonic() + seconds
        while (left := [process for process in left if not has_ended(process)]) and time.monotonic() < deadline:
            if not any(map(is_running, left)):
                break
            time.sleep(_POLL)
    return left


def _signal(process: Identified, number: signal.Signals) -> None:
    # The process may end between the check and the signal, but its pid is not reused that fast.
    if not is_running(process):
        return
    with suppress(ProcessLookupError, PermissionError):
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
