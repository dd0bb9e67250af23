"""Runs, trials and reports as pandas frames and as small tables of HTML, for notebooks.

pandas is the extra `notebook`; it is imported when a frame is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sealkit.errors import FailedPrecondition
from sealkit.reports import Estimate, RunReport
from sealkit.resources import Run, Trial

if TYPE_CHECKING:
    import pandas
    from jinja2 import Template

_TRIAL = (
    "name", "round", "phase", "context_id", "editor", "index", "policy", "state", "rejection", "accuracy",
    "baseline_accuracy", "forgetting", "reward", "selected", "completion",
)  # fmt: skip
"""The fields of a trial that are columns."""


def trials_frame(trials: Iterable[Trial]) -> pandas.DataFrame:
    """A row for each trial, with its `gain`, the retention questions that it `lost`, tokens and device seconds. Raises
    FailedPrecondition if pandas is not installed."""
    rows = [
        {
            **{name: getattr(trial, name) for name in _TRIAL},
            "gain": trial.gain,
            "lost": len(trial.retention.lost_query_ids) if trial.retention else None,
            "tokens": trial.usage.tokens,
            "device_seconds": trial.usage.device_seconds,
        }
        for trial in trials
    ]
    return _pandas().DataFrame(rows, columns=[*_TRIAL, "gain", "lost", "tokens", "device_seconds"])


def accuracies_frame(report: RunReport) -> pandas.DataFrame:
    """The report's accuracies: a row for each kind of trial and split, with the mean over `n` contexts and its 95 %
    interval. Raises FailedPrecondition if pandas is not installed."""
    rows = [(row.label, row.split, *_numbers(row.accuracy)) for row in report.rows]
    return _pandas().DataFrame(rows, columns=["what", "split", "accuracy", "low", "high", "n"])


def curve_frame(report: RunReport) -> pandas.DataFrame:
    """The learning curve: a row for each policy, with its held-out accuracy and its gain over the best one before it.
    Raises FailedPrecondition if pandas is not installed."""
    rows = [
        (point.policy, *_numbers(point.accuracy), point.gain.mean if point.gain else None, point.adopted, point.reason)
        for point in report.curve
    ]
    columns = ["policy", "accuracy", "low", "high", "n", "gain", "adopted", "reason"]
    return _pandas().DataFrame(rows, columns=columns)


def matrix_frame(report: RunReport) -> pandas.DataFrame:
    """R: accuracy on each context (column) after each commit (row; 0 is the base model); empty for a run that does not
    learn in sequence. Raises FailedPrecondition if pandas is not installed."""
    found = report.continual
    rows: Sequence[Any] = found.matrix if found else ()
    frame = _pandas().DataFrame(rows, columns=found.contexts if found else ())
    frame.index.name = "commit"
    return frame


def run_html(run: Run) -> str:
    """A run as a small table of HTML; every text is escaped."""
    return _template().render(run=run, report=None)


def report_html(report: RunReport) -> str:
    """A report's verdict and accuracies as a small table of HTML; every text is escaped."""
    return _template().render(run=None, report=report)


def _numbers(estimate: Estimate | None) -> tuple[float | None, float | None, float | None, int]:
    return (estimate.mean, estimate.low, estimate.high, estimate.n) if estimate else (None, None, None, 0)


@cache
def _template() -> Template:
    from sealkit.report_page.page import environment

    return environment().get_template("small.html.jinja")


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise FailedPrecondition("frames need pandas; install it with: pip install 'seal-suite[notebook]'") from error
    return pandas
