"""Beside a run that is followed: says when a service of the embedded stack dies, since the run then waits silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seal_cli.console import out
from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from sealkit.errors import FailedPrecondition


@contextmanager
def lookout(data: Path | None, every: float = 3.0) -> Iterator[None]:
    """Looks at the stack in `data` every `every` seconds while the block runs; does nothing for None."""
    if data is None:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(Layout.at(data), every, over), name="lookout", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(layout: Layout, every: float, over: threading.Event) -> None:
    said = ""
    while not over.wait(every):
        missing = missing_services(layout)
        if missing and missing != said:
            # On the console of the live view, which makes room for it.
            out.print(f"{missing}; the run waits, and goes on after `seal up`", markup=False, soft_wrap=True)
        said = missing


def missing_services(layout: Layout) -> str:
    """What of the stack does not run, in words; empty where all of it does."""
    try:
        state = layout.read_state()
    except FailedPrecondition:
        return ""  # every command that needs the record says so itself
    if state is None:
        return "the stack was stopped (another start may take another port: `seal runs watch` then finds the run again)"
    dead = [record.name for record in state.services if not process.is_alive(record)]
    return f"{' and '.join(dead)} died" if dead else ""
