"""The events of a run so far, added up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from statistics import fmean

from sealkit.pace import TimeLeft, Timeline
from sealkit.reports import Pace
from sealkit.resources import (
    Editor,
    Event,
    RunProgress,
    RunState,
    RunStateChanged,
    RunWaiting,
    StageStarted,
    Trial,
    TrialFinished,
    TrialState,
)

_LAST_RESULTS = 5


class Tally:
    """The numbers that a follower of a run shows. `earlier`: the pace of runs like it; `clock`: monotonic seconds."""

    def __init__(self, earlier: Pace | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._heard = clock()
        self._timeline = Timeline(earlier)
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._accuracies: list[float] = []
        self._baselines: list[float] = []
        self.rejected = 0
        self.failed = 0
        self.state = RunState.QUEUED
        self.stage: StageStarted | None = None
        self.waits: dict[str, str] = {}
        """What the run waits for, by what was tried."""
        self.results: deque[Trial] = deque(maxlen=_LAST_RESULTS)
        """The trials that ended last, newest last."""

    def note(self, event: Event) -> None:
        """Adds one event."""
        self._heard, self._last = self._clock(), event.time
        self._first = self._first or event.time
        kind = event.kind
        self._timeline.note(event.time, kind, event.progress)
        if isinstance(kind, TrialFinished):
            self._note_trial(kind.trial)
        elif isinstance(kind, StageStarted):
            self.stage = kind
        elif isinstance(kind, RunStateChanged):
            self.state, self.stage = kind.state, None
            self.waits.clear()
        elif isinstance(kind, RunWaiting):
            self.waits.pop(kind.doing, None)
            if kind.error:
                self.waits[kind.doing] = kind.error.message

    def _note_trial(self, trial: Trial) -> None:
        self.results.append(trial)
        if trial.editor != Editor.POLICY:
            return
        self.rejected += trial.state is TrialState.REJECTED
        self.failed += trial.state is TrialState.FAILED
        if trial.accuracy is not None:
            self._accuracies.append(trial.accuracy)
        if trial.baseline_accuracy is not None:
            self._baselines.append(trial.baseline_accuracy)

    @property
    def progress(self) -> RunProgress:
        """As of the last event."""
        return self._timeline.progress

    @property
    def watched(self) -> float:
        """Seconds since the watching began."""
        return self._clock() - self._began

    @property
    def age(self) -> float:
        """Seconds since the run was created, or if events were left out since it was last started. The last event of a
        run that is watched later counts as just happened."""
        if self._first is None or self._last is None:
            return 0.0
        return max(0.0, (self._last - self._first).total_seconds()) + self._clock() - self._heard

    @property
    def left(self) -> TimeLeft | None:
        """The time that the run still needs; None where too little is known for a number."""
        return self._timeline.left(self._clock() - self._heard)

    @property
    def accuracy(self) -> str:
        """Mean accuracy of the self-edits' adapters so far, and that without an adapter; of the last ones if events
        were left out."""
        if not self._accuracies:
            return ""
        which = "so far" if self._timeline.whole else f"of the last {len(self._accuracies)}:"
        base = f" (no adapter {fmean(self._baselines):.2f})" if self._baselines else ""
        return f"accuracy {which} {fmean(self._accuracies):.2f}{base}"
