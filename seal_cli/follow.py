"""Progress of a run: a live view on a terminal, one line per event elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

from seal_cli.console import at_terminal, out
from seal_cli.live import LiveView
from seal_cli.tally import Tally
from sealkit.report_page.event_lines import headline, trial_line
from sealkit.report_page.labels import duration
from sealkit.reports import Pace
from sealkit.resources import Event, TrialFinished
from sealkit.shown import visible


class View(Protocol):
    """Shows events as they arrive."""

    def show(self, event: Event) -> None: ...


def follow(events: Iterable[Event], console: Console = out, earlier: Pace | None = None) -> None:
    """Shows a run's events on the console until it ends. `earlier`: the pace of runs like it, for the time left. Raises
    KeyboardInterrupt on Ctrl-C."""
    tally = Tally(earlier)
    with _view(tally, console) as view:
        for event in events:
            tally.note(event)
            view.show(event)


@contextmanager
def _view(tally: Tally, console: Console) -> Iterator[View]:
    if not at_terminal(console):
        yield LineView(tally, console)
        return
    with LiveView(tally, console).shown() as view:
        yield view


class LineView:
    """Plain lines: for a file, a pipe or a CI log."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally = tally
        self._console = console

    def show(self, event: Event) -> None:
        """Prints the event after the time since the start."""
        tally = self._tally
        if isinstance(event.kind, TrialFinished):
            done = event.progress
            line = f"trial {done.trials_done}/{done.trials_total}: {trial_line(event.kind.trial)}"
            if (left := tally.left) and left.middle is not None:
                line += f"; about {duration(left.middle)} left"
        else:
            line = headline(event)
        if line:
            self._console.print(f"[{duration(tally.watched):>5}] {visible(line)}", markup=False, soft_wrap=True)
