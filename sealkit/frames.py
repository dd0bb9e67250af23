"""Trials, the learning curve and R as pandas frames. `RunReport.to_pandas` has the accuracies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sealkit.notebook import frame
from sealkit.reports import Estimate, RunReport
from sealkit.resources import Trial

if TYPE_CHECKING:
    import pandas

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
    return frame(rows, columns=[*_TRIAL, "gain", "lost", "tokens", "device_seconds"])


def curve_frame(report: RunReport) -> pandas.DataFrame:
    """The learning curve: a row for each policy, with its held-out accuracy and its gain over the best one before it.
    Raises FailedPrecondition if pandas is not installed."""
    rows = [
        (point.policy, *_numbers(point.accuracy), point.gain.mean if point.gain else None, point.adopted, point.reason)
        for point in report.curve
    ]
    columns = ["policy", "accuracy", "low", "high", "n", "gain", "adopted", "reason"]
    return frame(rows, columns=columns)


def matrix_frame(report: RunReport) -> pandas.DataFrame:
    """R: accuracy on each context (column) after each commit (row; 0 is the base model); empty for a run that does not
    learn in sequence. Raises FailedPrecondition if pandas is not installed."""
    found = report.continual
    rows: Sequence[Any] = found.matrix if found else ()
    made = frame(rows, columns=found.contexts if found else ())
    made.index.name = "commit"
    return made


def _numbers(estimate: Estimate | None) -> tuple[float | None, float | None, float | None, int]:
    return (estimate.mean, estimate.low, estimate.high, estimate.n) if estimate else (None, None, None, 0)
