"""The live view of a run on a terminal: where it is, how long it still takes, the last results, what it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seal_cli.console import share
from seal_cli.tally import Tally
from sealkit.pace import TimeLeft
from sealkit.report_page.event_lines import headline, round_label, stage_label, trial_label
from sealkit.report_page.labels import duration, rough_duration
from sealkit.resources import Event, RunState, RunWaiting, Trial, TrialState
from sealkit.shown import visible

_WIDEST = 100
_REFRESHES_A_SECOND = 4


class LiveView:
    """Some lines that are redrawn, below a log of milestones."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally = tally
        self._console = console

    @contextmanager
    def shown(self) -> Iterator[LiveView]:
        """Redraws until the end of the block; then only the log stays."""
        # Drawn anew at every refresh, so that the times advance between events too.
        with Live(
            get_renderable=self.render,
            console=self._console,
            transient=True,
            refresh_per_second=_REFRESHES_A_SECOND,
        ):
            yield self

    def show(self, event: Event) -> None:
        """Prints milestones; a wait is part of the view."""
        if not isinstance(event.kind, RunWaiting) and (line := headline(event)):
            self._console.print(visible(line), markup=False)

    def render(self) -> RenderableType:
        """The view as it is now; no line is wider than the console."""
        tally, width = self._tally, min(self._console.width, _WIDEST)
        lines: list[RenderableType] = [_ends(width, Text(_where(tally)), Text(duration(tally.age), style="dim"))]
        if tally.progress.trials_total:
            lines.append(_bar(tally, width))
        if counts := _counts(tally):
            lines.append(_line(counts, "dim"))
        if tally.results:
            lines.append(_results(tally, width))
        lines += [_line(f"waiting ({doing}): {message}", "yellow") for doing, message in tally.waits.items()]
        return Group(*lines)


def time_left(left: TimeLeft | None) -> str:
    """`about 9 min left`, `4–9 min left`, `at least 4 min left`; empty where it is not known."""
    if left is None:
        return ""
    if left.high is None:
        return f"at least {rough_duration(left.low)} left"
    low, high = rough_duration(left.low), rough_duration(left.high)
    if left.middle is not None or low == high:
        return f"about {rough_duration((left.low + left.high) / 2)} left"
    number, *unit = low.split()
    same = len(unit) == 1 and high.split()[1:] == unit
    return f"{number if same else low}–{high} left"


def _where(tally: Tally) -> str:
    if tally.stage:
        return f"{round_label(tally.stage, tally.progress)} · {stage_label(tally.stage.stage)}"
    if tally.state is RunState.RUNNING:
        return "measuring the policy to start from"
    behind = tally.progress.stage
    return behind if tally.state is RunState.QUEUED and behind not in ("", "queued") else "waiting for a worker"


def _bar(tally: Tally, width: int) -> Table:
    done, total = tally.progress.trials_done, tally.progress.trials_total
    told = " · ".join(part for part in (f"{done}/{total} trials", time_left(tally.left)) if part)
    return _ends(width, ProgressBar(total=total, completed=done), Text(told))


def _counts(tally: Tally) -> str:
    counted = ((tally.rejected, "rejected"), (tally.failed, "failed"))
    return " · ".join(part for part in (tally.accuracy, *(f"{n} {what}" for n, what in counted if n)) if part)


def _results(tally: Tally, width: int) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, width=width)
    table.add_column("last results", ratio=1, no_wrap=True, overflow="ellipsis")
    for column in ("accuracy", "gain", "lost"):
        table.add_column(column, justify="right", no_wrap=True)
    for trial in tally.results:
        table.add_row(Text(visible(_label(trial))), *_scores(trial))
    return table


def _label(trial: Trial) -> str:
    if trial.state is TrialState.SUCCEEDED:
        return trial_label(trial)
    why = trial.rejection or (trial.error.reason if trial.error else "")
    # The reason first: a long name is cut off at its end.
    return f"{trial.state.value}{f' ({why})' if why else ''}: {trial_label(trial)}"


def _scores(trial: Trial) -> tuple[str, str, str]:
    """Accuracy, gain, and retention questions lost of those that the base model answers."""
    gain = "" if trial.gain is None else f"{trial.gain:+.2f}"
    lost = f"{len(trial.retention.lost_query_ids)} of {trial.retention.kept}" if trial.retention else ""
    return ("" if trial.accuracy is None else share(trial.accuracy)), gain, lost


def _ends(width: int, left: RenderableType, right: RenderableType) -> Table:
    """One line: `left` in the room that `right` leaves."""
    line = Table.grid(padding=(0, 1), expand=False)
    line.width = width
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _line(text: str, style: str) -> Text:
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")
