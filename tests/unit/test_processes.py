"""Which process a record means, against psutil, which reads the same from the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sealkit import processes
from sealkit.processes import Presence, ProcessStart, presence_of, start_of

MOMENTS = [processes._other_moment, *([processes._linux_moment] if sys.platform == "linux" else [])]


@dataclass
class Process:
    pid: int
    start: ProcessStart


@pytest.fixture
def oddly_named(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process whose name has what /proc/PID/stat separates its fields by."""
    program = tmp_path / "a) R 1 (b"
    shutil.copy(shutil.which("sleep") or "", program)
    return subprocess.Popen([program, "60"])


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_does_not_move_with_the_clock(
    moment: Callable[[int], str], oddly_named: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        before = moment(oddly_named.pid)
        wall = psutil.Process(oddly_named.pid).create_time()
        boot = psutil.boot_time()
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot + 3600)
        assert psutil.Process(oddly_named.pid).create_time() != wall, "the clock was set"
        assert moment(oddly_named.pid) == before
    finally:
        oddly_named.kill()
    deadline = time.monotonic() + 10
    while psutil.Process(oddly_named.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    with pytest.raises(ProcessLookupError):
        moment(oddly_named.pid)
    oddly_named.wait()
    with pytest.raises(ProcessLookupError):
        moment(oddly_named.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="clock ticks are Linux's")
def test_on_linux_it_is_what_psutil_recognises_a_process_by() -> None:
    ticks = int(start_of(os.getpid()).moment)
    assert ticks / os.sysconf("SC_CLK_TCK") == psutil.Process()._proc.create_time(monotonic=True)  # type: ignore[attr-defined]


def test_another_boot_ended_a_process_of_this_machine_and_says_nothing_of_another_one() -> None:
    here = start_of(os.getpid())
    assert presence_of(Process(os.getpid(), here)) is Presence.RUNNING
    assert presence_of(Process(os.getpid(), here.changed(moment="1"))) is Presence.ENDED
    assert presence_of(Process(os.getpid(), here.changed(boot="before"))) is Presence.ENDED
    assert presence_of(Process(os.getpid(), here.changed(boot="before", host="node7"))) is Presence.UNKNOWN
    assert presence_of(Process(os.getpid(), here.changed(host="renamed"))) is Presence.RUNNING
