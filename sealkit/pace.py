"""The pace of a run from its events, and the time that it still needs.

A run's time has three parts: the *start*, until its first trial has ended; the *trials*, from one end to the next; and
the *rest of each round*: M-step or commit, measuring, and the wait for the first trial of the next stage. Each part has
its own mean, because a rate over all the time so far counts the start for every trial: on one GPU the first trial ends
after a minute, and the next ones a few seconds apart.

`Timeline` measures the parts of one run. The same class measures earlier runs, whose pace (`Pace`) counts as some
trials and one round of this run, so its own measurements soon outweigh it. Times are those of the events, by the
controller's clock; time in which the run was not driven, or waited for something, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from math import hypot, sqrt

from sealkit.reports import Pace
from sealkit.resources import EventKind, RoundStage, RunProgress, RunState, RunStateChanged, RunWaiting, StageStarted

_TRIES = frozenset({RoundStage.E_STEP, RoundStage.COMPARISON, RoundStage.LAST_POLICY})
"""Stages in which trials end."""
_EARLIER_TRIALS, _EARLIER_ROUNDS = 8, 1
"""Numbers of trials and rounds of this run that the pace of earlier runs counts as."""
_ENOUGH_TRIALS = 8
"""Trials that began together end together, so the first ends of a run are closer than later ones will be: they are not
used before so many have ended, or all of their stage."""
_RECENT_TRIALS, _RECENT_ROUNDS = 100, 8
"""The newest count most, over about as many: rounds become longer when the M-step starts from the base model."""
_TRIAL_DEVIATION, _ROUND_DEVIATION = 0.5, 0.3
"""Assumed relative standard deviations of one trial and of one round."""
_DRIFT, _DIFFERENCE = 0.1, 0.15
"""Assumed relative differences of later means from those so far, and of this run's from those of earlier runs."""
_ABOUT, _WIDEST = 1.6, 4.0
"""Largest ratio of the bounds that counts as one number, and as known at all."""


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Bounds of the seconds that a run still needs; without `high` there is only a lower one."""

    low: float
    high: float | None

    @property
    def middle(self) -> float | None:
        """One number, if the bounds are close enough for one."""
        return (self.low + self.high) / 2 if self.high is not None and self.high <= _ABOUT * self.low else None


@dataclass(frozen=True, slots=True)
class _Guess:
    """Seconds, more or less."""

    seconds: float
    error: float

    def __add__(self, other: _Guess) -> _Guess:
        return _Guess(self.seconds + other.seconds, hypot(self.error, other.error))

    def less(self, spent: float) -> _Guess:
        """What is left of it after `spent` seconds."""
        return _Guess(max(0.0, self.seconds - spent), self.error)


@dataclass(slots=True)
class _Mean:
    """Seconds of things that were counted: of all, and a sum in which older ones fade."""

    span: int
    deviation: float
    seconds: float = 0.0
    count: int = 0
    recent_seconds: float = 0.0
    recent_count: float = 0.0
    earlier_count: float = 0.0
    """The part of `recent_count` that is of earlier runs."""

    def add(self, seconds: float, count: int) -> None:
        self.seconds, self.count = self.seconds + seconds, self.count + count
        keep = (1 - 1 / self.span) ** count
        self.recent_seconds = keep * self.recent_seconds + seconds
        self.recent_count = keep * self.recent_count + count
        self.earlier_count *= keep

    def begin_with(self, mean: float, count: int) -> None:
        """Counts an earlier mean like so many measurements."""
        self.recent_seconds, self.recent_count, self.earlier_count = mean * count, float(count), float(count)

    def of_next(self, count: int) -> _Guess | None:
        """The seconds of so many to come; None before the first was measured."""
        if not self.recent_count:
            return None
        seconds = count * self.recent_seconds / self.recent_count
        error = self.deviation / sqrt(self.recent_count) + _DRIFT
        return _Guess(seconds, seconds * (error + _DIFFERENCE * self.earlier_count / self.recent_count))


@dataclass(slots=True)
class Timeline:
    """Where the time of one run went, added up event by event, in order. `earlier`: the pace of runs like it. Where
    events were left out (`WatchRunRequest.latest`), nothing is measured before the next trial, nor of that round."""

    earlier: Pace | None = None
    progress: RunProgress = field(default_factory=RunProgress)
    whole: bool = True
    """Whether no event was left out."""
    _last: datetime | None = None
    _driven: bool = False
    _waits: set[str] = field(default_factory=set)
    _stage: str = ""
    _ends: bool = False
    """Whether trials of the current stage have ended."""
    _started: bool = False
    """Whether a trial of the run has ended."""
    _start: float = 0.0
    _first: float = 0.0
    """The part of the start in which trials were in progress."""
    _trials: _Mean = field(default_factory=lambda: _Mean(_RECENT_TRIALS, _TRIAL_DEVIATION))
    _rounds: _Mean = field(default_factory=lambda: _Mean(_RECENT_ROUNDS, _ROUND_DEVIATION))
    _between: float = 0.0
    """Since the last end of a trial that is in `_trials`."""
    _new: int = 0
    """Ends in `_between`."""
    _rest: float = 0.0
    """Of the rounds that are not yet in `_rounds`."""
    _unmeasured: int = 0
    """Rounds that will never be in `_rounds`."""
    _partly: bool = False
    """Whether the current one of the rounds is to be one of them."""

    def __post_init__(self) -> None:
        if self.earlier:
            self._trials.begin_with(self.earlier.trial_seconds, _EARLIER_TRIALS)
            self._rounds.begin_with(self.earlier.round_seconds, _EARLIER_ROUNDS)

    def note(self, time: datetime, kind: EventKind | None, progress: RunProgress) -> None:
        """Adds one event. Of the kinds, only states, waits and stages matter."""
        # Each end of a trial is an event, and a change of state may end many.
        changes = self._last is not None and isinstance(kind, RunStateChanged)
        if progress.trials_done - self.progress.trials_done > 1 and not changes:
            self._leave_out(progress)
        elif self._last is not None:
            self._add(max(0.0, (time - self._last).total_seconds()))
        self._last = time
        self._end_trials(progress.trials_done - self.progress.trials_done, progress.rounds_done)
        self.progress = progress
        if isinstance(kind, RunStateChanged):
            self._driven = kind.state is RunState.RUNNING
            self._end_stage("")
            self._waits.clear()  # the process that waited may be gone, and so would be the event that ends the wait
            if kind.state.terminal:
                self._end_rounds(progress.rounds_done)
        elif isinstance(kind, RunWaiting):
            (self._waits.add if kind.error else self._waits.discard)(kind.doing)
        elif isinstance(kind, StageStarted):
            self._end_stage(kind.stage)

    @property
    def pace(self) -> Pace | None:
        """What was measured; None before enough trials and one round."""
        if not self._trials.count or not self._rounds.count:
            return None
        return Pace(
            start_seconds=self._start,
            trial_seconds=self._trials.seconds / self._trials.count,
            round_seconds=self._rounds.seconds / self._rounds.count,
        )

    def left(self, since: float) -> TimeLeft | None:
        """The time left, `since` seconds after the last event; None where too little is known for a number."""
        progress = self.progress
        trials = self._trials.of_next(max(0, progress.trials_total - progress.trials_done))
        if not self._driven or self._waits or not progress.trials_total or trials is None:
            return None
        if self._ends:
            # The next end is expected after one mean; from then on the estimate stays until it comes.
            trials = trials.less(min(since, trials.seconds / max(1, progress.trials_total - progress.trials_done)))
        if self.earlier and not self._started:
            trials += _Guess(self.earlier.start_seconds, 0.0).less(self._start + since)
        rounds_left = max(0, progress.rounds_total - self._rounds.count - self._unmeasured)
        begun = self._rest + (since if self._started and not self._ends else 0.0)
        rounds = self._rounds.of_next(rounds_left)
        if rounds is None:
            return self._at_least(trials, _Guess(rounds_left * self._first, 0.0).less(begun))
        whole = trials + rounds.less(begun)
        low, high = max(0.0, whole.seconds - whole.error), whole.seconds + whole.error
        return TimeLeft(low, high) if high <= _WIDEST * low else None

    def _at_least(self, trials: _Guess, rounds: _Guess) -> TimeLeft | None:
        """In the first round: the rest of a round takes at least as long as the first trial, and how much longer is not
        known."""
        low = trials.seconds - trials.error + rounds.seconds
        # The time to the first end is too long for one trial, and without it a mean may be too short: only once the two
        # are near each other is either of use.
        high = trials.seconds + trials.error + rounds.seconds
        high += self._first / self._trials.count * (self.progress.trials_total - self.progress.trials_done)
        return TimeLeft(low, None) if high <= _WIDEST * low else None

    def _leave_out(self, progress: RunProgress) -> None:
        """Events before this progress are not known."""
        self.progress, self.whole, self._started = progress, False, True
        self._between, self._rest, self._new, self._ends = 0.0, 0.0, 0, False
        self._unmeasured, self._partly = progress.rounds_done - self._rounds.count, True

    def _add(self, seconds: float) -> None:
        if not self._driven or self._waits:
            return
        if not self._started:
            self._start += seconds
            self._first += seconds if self._stage in _TRIES else 0.0
        elif self._ends:
            self._between += seconds
        else:
            self._rest += seconds

    def _end_trials(self, count: int, rounds_done: int) -> None:
        """So many trials have ended since the last event."""
        if count <= 0:
            return
        self._new += count if self._started else count - 1
        self._started = True
        if self._trials.count or self._new >= _ENOUGH_TRIALS:
            self._use_trials()
        if self._stage in _TRIES and not self._ends:
            self._ends = True
            self._end_rounds(rounds_done)

    def _use_trials(self) -> None:
        self._trials.add(self._between, self._new)
        self._between, self._new = 0.0, 0

    def _end_stage(self, following: str) -> None:
        if self._new:
            self._use_trials()
        self._stage, self._ends, self._between = following, False, 0.0

    def _end_rounds(self, rounds_done: int) -> None:
        if (count := rounds_done - self._rounds.count - self._unmeasured) <= 0:
            return
        if self._partly:
            self._unmeasured, self._partly = self._unmeasured + count, False
        else:
            self._rounds.add(self._rest, count)
        self._rest = 0.0
