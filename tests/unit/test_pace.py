"""The time left of a run: what is shown holds, from the first minute on; where too little is known, nothing is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sealkit.pace import TimeLeft, Timeline
from sealkit.reports import Pace
from sealkit.resources import EventKind, Fault, RunProgress, RunState, RunStateChanged, RunWaiting, StageStarted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Happened = tuple[float, EventKind | None, RunProgress]

# Recorded: configs/knowledge_small.toml on a model of 0.5 billion parameters on two CPU cores. Seconds at which trials
# ended.
FIRST = (
    91.6, 92.4, 95.8, 99.2, 117.0, 127.4, 138.2, 146.5, 158.6, 159.2, 173.9, 184.0, 197.1, 199.0, 200.9, 212.0, 223.6,
    227.9, 235.6, 236.4, 238.0, 248.5, 252.4, 263.7,
)  # fmt: skip
SECOND = (
    365.4, 394.2, 401.0, 402.4, 406.5, 407.2, 426.8, 455.9, 462.7, 463.8, 467.1, 467.7, 495.2, 497.0, 501.7, 501.9,
    503.6, 533.9, 534.6, 535.7,
)  # fmt: skip
LAST = (634.3, 644.7, 647.4, 647.7)
END = 647.7


def recorded(speed: float = 1.0) -> list[Happened]:
    """The recorded run, `speed` times as fast."""
    done, rounds = 0, 0

    def at(seconds: float, kind: EventKind | None = None) -> Happened:
        progress = RunProgress(rounds_done=rounds, rounds_total=2, trials_done=done, trials_total=48)
        return seconds / speed, kind, progress

    events = [at(0.0, RunStateChanged(state=RunState.QUEUED)), at(0.2, RunStateChanged(state=RunState.RUNNING))]
    for begun, trained, ends in ((8.4, 302.0, FIRST), (302.0, 575.4, SECOND), (575.4, None, LAST)):
        stage = "E-step" if trained else "scoring the last policy"
        events.append(at(begun, StageStarted(round=min(rounds, 1), stage=stage)))
        for end in ends:
            done += 1
            events.append(at(end))
        if trained:
            events.append(at(ends[-1], StageStarted(round=rounds, stage="M-step")))
            rounds += 1
            events.append(at(trained))
    return [*events, at(END, RunStateChanged(state=RunState.SUCCEEDED))]


def measured(events: Iterable[Happened], earlier: Pace | None = None) -> Timeline:
    timeline = Timeline(earlier)
    for seconds, kind, progress in events:
        timeline.note(NOW + timedelta(seconds=seconds), kind, progress)
    return timeline


def left_at(now: float, events: list[Happened], earlier: Pace | None = None) -> TimeLeft | None:
    seen = [event for event in events if event[0] <= now]
    return measured(seen, earlier).left(now - seen[-1][0])


def pace_of(events: list[Happened]) -> Pace:
    pace = measured(events).pace
    assert pace is not None
    return pace


def test_the_parts_of_a_run_are_measured_apart() -> None:
    pace = pace_of(recorded())
    assert pace.start_seconds == pytest.approx(91.4)
    between = (FIRST[-1] - FIRST[0]) + (SECOND[-1] - SECOND[0]) + (LAST[-1] - LAST[0])
    assert pace.trial_seconds == pytest.approx(between / 47)
    assert pace.round_seconds == pytest.approx(((SECOND[0] - FIRST[-1]) + (LAST[0] - SECOND[-1])) / 2)


@pytest.mark.parametrize("speed", [1.0, 0.1, 10.0])
def test_what_is_shown_without_an_earlier_run_holds(speed: float) -> None:
    """The old rate, over all the time so far, said 72 minutes after the first trial; there were nine."""
    events, shown = recorded(speed), {}
    for percent in range(1, 100):
        now = percent * END / speed / 100
        if left := left_at(now, events):
            shown[percent] = left
            true = END / speed - now
            slack = 0.01 * END / speed
            assert left.low <= true + slack, (percent, left, true)
            assert left.high is None or true <= left.high + slack, (percent, left, true)
    assert min(shown) > 100 * FIRST[1] / END
    assert {25, 50, 75, 90} <= shown.keys()
    assert shown[25].low > 0.6 * 0.75 * END / speed, "a bound that says something"


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.4])
def test_with_an_earlier_run_a_range_holds_from_the_beginning(speed: float) -> None:
    """Also if the earlier run was 30 % slower or faster."""
    events, earlier = recorded(), pace_of(recorded(speed))
    for percent in range(1, 91):
        now = percent * END / 100
        left = left_at(now, events, earlier)
        assert left is not None, percent
        assert left.high is not None
        assert 0.85 * left.low <= END - now <= 1.15 * left.high, (percent, left, END - now)


def test_one_number_is_only_for_close_bounds() -> None:
    assert TimeLeft(50, 70).middle == 60
    assert TimeLeft(50, 90).middle is None
    assert TimeLeft(50, None).middle is None


def test_between_two_ends_the_time_goes_on_but_not_below_the_trial_that_is_awaited() -> None:
    events = [event for event in recorded() if event[0] <= 452]
    timeline = measured(events)
    at_once, soon, late = timeline.left(0.0), timeline.left(3.0), timeline.left(1000.0)
    assert at_once
    assert soon
    assert late
    assert soon.low == pytest.approx(at_once.low - 3.0)
    assert at_once.low - 15 < late.low < soon.low


def test_time_that_was_not_driven_or_waited_is_left_out() -> None:
    whole = recorded()

    def interrupted() -> Iterator[Happened]:
        fault = Fault(code=14, reason="UNAVAILABLE", message="the trainer does not answer")
        for seconds, kind, progress in whole:
            later = 0.0 if seconds <= 150 else 1000.0 if seconds <= 400 else 3000.0
            yield seconds + later, kind, progress
            if seconds == 146.5:
                yield seconds, RunWaiting(doing="training", error=fault), progress
                yield seconds + 1000, RunWaiting(doing="training"), progress
            if seconds == 394.2:
                yield seconds + 999, RunWaiting(doing="committing", error=fault), progress  # its end is never reported
                yield seconds + 1000, RunStateChanged(state=RunState.PAUSED), progress
                yield seconds + 2999, RunStateChanged(state=RunState.QUEUED), progress
                yield seconds + 3000, RunStateChanged(state=RunState.RUNNING), progress
                yield seconds + 3000, StageStarted(round=1, stage="E-step"), progress

    events = list(interrupted())
    pace, plain = pace_of(events), pace_of(whole)
    assert pace.start_seconds == plain.start_seconds
    assert pace.trial_seconds == pytest.approx(plain.trial_seconds, rel=0.05)
    assert left_at(600.0, events) is None, "it waits: nobody knows for how long"
    assert left_at(3460.0, events) is not None, "it runs again, so it waits no longer"


def test_from_the_latest_events_only_what_was_seen_is_measured() -> None:
    """The head of a stream that leaves events out: the last state, the stage, and then the latest events."""
    events = recorded()
    second = next(n for n, (_, kind, done) in enumerate(events) if done.trials_done == len(FIRST) + 5)
    head = [events[1], next(one for one in reversed(events[:second]) if isinstance(one[1], StageStarted))]
    early = measured([*head, *events[second : second + 4]])
    assert not early.whole
    assert measured(events).whole
    soon = early.left(0.0)
    assert soon is None or soon.high is None, "how long the rest of a round takes is not known"
    whole = measured([*head, *events[second:]])
    assert whole.progress == events[-1][2]
    assert whole.pace is None, "no round was seen from its beginning to its end"
    left = measured([*head, *(one for one in events[second:] if one[0] < SECOND[-1])]).left(0.0)
    assert left is not None
    assert 0 < left.low < END - SECOND[-2]


def test_nothing_is_shown_before_the_number_of_trials_is_known() -> None:
    progress = RunProgress(rounds_total=2)
    events: list[Happened] = [
        (0.0, RunStateChanged(state=RunState.RUNNING), progress),
        (1.0, StageStarted(round=0, stage="writing the exams"), progress),
    ]
    assert measured(events, Pace(start_seconds=9, trial_seconds=1, round_seconds=1)).left(5.0) is None
