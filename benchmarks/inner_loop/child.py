"""One way in a separate process, so that its memory is measured separately and its settings do not affect the
others."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.inner_loop.trials import Bench, Trial
from benchmarks.inner_loop.ways import Ours, Timing, make_way


class Memory(NamedTuple):
    """Memory of the process in MiB: with the model loaded, and the peak. 0 if the system does not report it."""

    loaded: int
    peak: int


class Child:
    """Forked, to save the imports. Ends with `close`."""

    def __init__(self, way: str, bench: Bench) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs, way, bench))
        self._process.start()
        theirs.close()

    def train(self, trials: Sequence[Trial]) -> Timing:
        self._pipe.send([*trials])
        timing: Timing = self._pipe.recv()
        return timing

    def profile(self) -> dict[str, float]:
        """For our engine: CPU time of a step by torch operation."""
        self._pipe.send("profile")
        shares: dict[str, float] = self._pipe.recv()
        return shares

    def close(self) -> Memory:
        self._pipe.send(None)
        memory: Memory = self._pipe.recv()
        self._process.join()
        return memory


def _serve(pipe: Connection, way: str, bench: Bench) -> None:
    parent = os.getppid()
    torch.set_num_threads(bench.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: bench.threads])
    trainer = make_way(way, bench)
    loaded, peak = _mib("VmRSS"), 0
    for task in iter(lambda: _next(pipe, parent), None):
        if isinstance(task, list):
            pipe.send(trainer.train(task))
            peak = _mib("VmHWM")  # profiling uses additional memory
        elif isinstance(trainer, Ours):
            pipe.send(trainer.profile())
    pipe.send(Memory(loaded, peak))
    sys.stdout.flush()


def _next(pipe: Connection, parent: int) -> object:
    """The next task; ends the process if its parent has died: siblings inherit the pipe, so it would stay open."""
    while not pipe.poll(1):
        if os.getppid() != parent:
            raise SystemExit(1)
    return pipe.recv()


def _mib(field: str) -> int:
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) >> 10 if found else 0
