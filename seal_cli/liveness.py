"""While a run is followed: reports when a service of the embedded stack dies or its disk is full. The controller cannot
tell either: it may be the one that died, and what it tells is stored on that disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from seal_cli.console import out
from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from sealkit.errors import FailedPrecondition

_FULL_BYTES = 1 << 20


@contextmanager
def report_dead_services(data: Path | None, console: Console = out, every: float = 3.0) -> Iterator[None]:
    """Checks the stack in `data` every `every` seconds while the block runs, and reports on the console; does nothing
    for None."""
    if data is None:
        yield
        return
    over = threading.Event()
    arguments = (Layout.at(data), console, every, over)
    watcher = threading.Thread(target=_watch, args=arguments, name="liveness", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(layout: Layout, console: Console, every: float, over: threading.Event) -> None:
    said = ""
    while not over.wait(every):
        seen = obstacle(layout)
        if seen and seen != said:
            # On the console of the live view, which redraws below it.
            console.print(f"{seen}; the run waits, and continues after that", markup=False, soft_wrap=True)
        said = seen


def obstacle(layout: Layout) -> str:
    """What a run in this stack waits for, and what to do; empty if nothing is seen."""
    try:
        state = layout.read_state()
    except FailedPrecondition:
        return ""  # every command that needs the file reports this itself
    if state is None:
        return "the stack was stopped: `seal up` (it may take another port: `seal runs watch` then finds the run again)"
    if dead := [record.name for record in state.services if process.has_ended(record)]:
        return f"{' and '.join(dead)} died: `seal up` starts it again"
    if shutil.disk_usage(layout.data).free < _FULL_BYTES:
        return f"the disk with {layout.data} is full: make room"
    return ""
