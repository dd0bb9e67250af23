"""While a run is followed: reports when a service of the embedded stack dies, since the run then waits silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from seal_cli.console import out
from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from sealkit.errors import FailedPrecondition


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
        missing = missing_services(layout)
        if missing and missing != said:
            # On the console of the live view, which redraws below it.
            console.print(f"{missing}; the run waits, and continues after `seal up`", markup=False, soft_wrap=True)
        said = missing


def missing_services(layout: Layout) -> str:
    """The services that do not run, in words; empty if all do."""
    try:
        state = layout.read_state()
    except FailedPrecondition:
        return ""  # every command that needs the file reports this itself
    if state is None:
        return "the stack was stopped (another start may take another port: `seal runs watch` then finds the run again)"
    dead = [record.name for record in state.services if process.has_ended(record)]
    return f"{' and '.join(dead)} died" if dead else ""
