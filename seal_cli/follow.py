"""Progress of a run: a live line on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from seal_cli.console import at_terminal, out
from sealkit.names import visible
from sealkit.report_page.event_lines import headline, trial_line
from sealkit.report_page.labels import duration
from sealkit.resources import Editor, Event, Trial, TrialFinished, TrialState


@dataclass
class Tally:
    """The events seen so far, added up."""

    began: float = field(default_factory=time.monotonic)
    first_done: int | None = None
    done: int = 0
    total: int = 0
    accuracies: list[float] = field(default_factory=list)
    baselines: list[float] = field(default_factory=list)
    rejected: int = 0
    failed: int = 0

    def note(self, event: Event) -> None:
        """Adds one event."""
        if self.first_done is None:
            self.first_done = event.progress.trials_done
        self.done, self.total = event.progress.trials_done, event.progress.trials_total
        if isinstance(event.kind, TrialFinished) and event.kind.trial.editor == Editor.POLICY:
            self._note_trial(event.kind.trial)

    def _note_trial(self, trial: Trial) -> None:
        self.rejected += trial.state is TrialState.REJECTED
        self.failed += trial.state is TrialState.FAILED
        if trial.accuracy is not None:
            self.accuracies.append(trial.accuracy)
        if trial.baseline_accuracy is not None:
            self.baselines.append(trial.baseline_accuracy)

    @property
    def elapsed(self) -> float:
        """Seconds watched."""
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate of the trials so far; None before one has ended."""
        seen = self.done - (self.first_done or 0)
        return self.elapsed / seen * (self.total - self.done) if seen > 0 and self.total > self.done else None

    @property
    def accuracy(self) -> str:
        """Mean accuracy of the self-edits' adapters so far, and that without an adapter."""
        if not self.accuracies:
            return ""
        base = f" (no adapter {fmean(self.baselines):.2f})" if self.baselines else ""
        return f"accuracy so far {fmean(self.accuracies):.2f}{base}"


class View(Protocol):
    """Shows events as they arrive."""

    def show(self, event: Event, tally: Tally) -> None: ...


def follow(events: Iterable[Event], console: Console = out) -> None:
    """Shows a run's events on the console until it ends. Raises KeyboardInterrupt on Ctrl-C."""
    tally = Tally()
    with _view(tally, console) as view:
        for event in events:
            tally.note(event)
            view.show(event, tally)


@contextmanager
def _view(tally: Tally, console: Console) -> Iterator[View]:
    if not at_terminal(console):
        yield LineView(console)
        return
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("trials ·"),
        _Clock(),
        TextColumn("· {task.description}"),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        yield LiveView(progress, tally)


class _Clock(ProgressColumn):
    """Seconds elapsed and left; computed at every refresh, so it also advances between events."""

    def render(self, task: Task) -> Text:
        tally: Tally = task.fields["tally"]
        left = tally.seconds_left
        return Text(duration(tally.elapsed) + (f", about {duration(left)} left" if left is not None else ""))


class LiveView:
    """One live line below a log of milestones."""

    def __init__(self, progress: Progress, tally: Tally) -> None:
        self.progress = progress
        self.task = progress.add_task("waiting for a worker", total=None, tally=tally)

    def show(self, event: Event, tally: Tally) -> None:
        """Advances the bar; prints milestones."""
        if line := headline(event):
            self.progress.print(visible(line), markup=False)
        self.progress.update(
            self.task, total=tally.total or None, completed=tally.done, description=tally.accuracy or "no score yet"
        )


class LineView:
    """Plain lines: for a file, a pipe or a CI log."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, event: Event, tally: Tally) -> None:
        """Prints the event after the time since the start."""
        if isinstance(event.kind, TrialFinished):
            line = f"trial {tally.done}/{tally.total}: {trial_line(event.kind.trial)}"
            if (left := tally.seconds_left) is not None:
                line += f"; about {duration(left)} left"
        else:
            line = headline(event)
        if line:
            self.console.print(f"[{duration(tally.elapsed):>5}] {visible(line)}", markup=False, soft_wrap=True)
