"""Processes, identified by pid and start time: each is started in its own session and can be recognised and stopped
later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

_START_TIME_SLACK = 5.0
"""Seconds. A start time is computed from the boot time, which moves a little when the clock is set."""
_POLL = 0.05


class Identified(Protocol):
    """Anything that identifies a process by pid and start time."""

    @property
    def pid(self) -> int: ...
    @property
    def started(self) -> float: ...


def spawn(command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path) -> tuple[int, float]:
    """Starts `command` detached from this terminal, with its output in `log` (the previous log is kept beside it).

    Returns pid and start time. Raises OSError.
    """
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return child.pid, psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        return child.pid, time.time()


def is_alive(process: Identified) -> bool:
    """Whether this process still runs: same pid, same start time, not a zombie."""
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.started) <= _START_TIME_SLACK
        return same and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def stop(processes: Iterable[Identified], grace: float) -> None:
    """SIGTERM to all, `grace` seconds to drain, then SIGKILL to their whole sessions. Returns when none is left."""
    running = [process for process in processes if is_alive(process)]
    for process in running:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (running := [process for process in running if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(_POLL)
    for process in running:
        _signal(process, signal.SIGKILL)
    while any(is_alive(process) for process in running):
        time.sleep(_POLL)


def _signal(process: Identified, number: signal.Signals) -> None:
    # The process may end between the check and the signal, but its pid is not reused that fast.
    if not is_alive(process):
        return
    try:
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return
