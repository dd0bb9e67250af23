"""Which process a record means: its pid, and what the kernel keeps of its start. No wall clock is read, because a step
of the clock (NTP, a machine that slept) would make a living process look like another one."""

from __future__ import annotations

import platform
import subprocess
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Protocol

from sealkit.types import Value


class ProcessStart(Value):
    """The start of a process, unique among all processes that ever had its pid.

    Attributes:
        host: Name of the machine.
        boot: Id of the machine's boot; empty if the system has none.
        moment: Linux: clock ticks from the boot to the start. macOS: the start time that the kernel stored then, in
            seconds; later steps of the clock do not change it.
    """

    host: str
    boot: str
    moment: str


class Presence(StrEnum):
    """Whether a process still exists. UNKNOWN: it cannot be told from here; it may still run."""

    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


class Identified(Protocol):
    """Anything that identifies a process by its pid and start."""

    @property
    def pid(self) -> int: ...
    @property
    def start(self) -> ProcessStart: ...


def start_of(pid: int) -> ProcessStart:
    """The start of the process that has this pid now. Raises ProcessLookupError if none has (or only a zombie)."""
    return ProcessStart(host=platform.node(), boot=_boot(), moment=_moment(pid))


def presence_of(process: Identified) -> Presence:
    """Whether this very process still runs, whatever the wall clock says."""
    if process.start.boot != _boot():
        # Another boot: of this machine, which ended it, or of another one that has the same folder.
        return Presence.ENDED if process.start.host == platform.node() else Presence.UNKNOWN
    try:
        return Presence.RUNNING if _moment(process.pid) == process.start.moment else Presence.ENDED
    except ProcessLookupError:
        return Presence.ENDED
    except PermissionError:
        return Presence.UNKNOWN


def _moment(pid: int) -> str:
    return _linux_moment(pid) if sys.platform == "linux" else _other_moment(pid)


def _linux_moment(pid: int) -> str:
    """Fields 3 (state) and 22 (start) of proc_pid_stat(5); the name before them may contain spaces and brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return fields[19]


def _other_moment(pid: int) -> str:
    import psutil

    try:
        found = psutil.Process(pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            raise ProcessLookupError(pid)
        # The public `create_time` is adjusted by the steps of the clock; this is the number that psutil itself
        # recognises a process by.
        return str(found._proc.create_time(monotonic=True))  # type: ignore[attr-defined]
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(pid) from error
    except psutil.AccessDenied as error:
        raise PermissionError(pid) from error


@cache
def _boot() -> str:
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
