from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from seal_cli.follow import Tally, follow
from sealkit.resources import (
    Editor,
    Event,
    EventKind,
    Fault,
    PolicyTrained,
    PolicyVersion,
    RunProgress,
    RunState,
    RunStateChanged,
    RunWaiting,
    StageStarted,
    Trial,
    TrialFinished,
    TrialPhase,
    TrialState,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: EventKind, done: int = 0, total: int = 4) -> Event:
    progress = RunProgress(rounds_total=2, trials_done=done, trials_total=total)
    return Event(cursor=str(done), time=NOW, progress=progress, kind=kind)


def finished(
    index: int, accuracy: float | None, *, editor: Editor = Editor.POLICY, rejection: str = ""
) -> TrialFinished:
    return TrialFinished(
        trial=Trial(
            round=0,
            name=f"runs/r/rounds/0/trials/{index}",
            state=TrialState.REJECTED if rejection else TrialState.SUCCEEDED,
            phase=TrialPhase.E_STEP,
            context_id="lake-ombrel",
            editor=editor,
            index=index,
            policy="policies/base",
            rejection=rejection,
            accuracy=accuracy,
            baseline_accuracy=None if rejection else 0.25,
            create_time=NOW,
        )
    )


POLICY = PolicyVersion(name="policies/next", run="runs/r", version=0, held_out_accuracy=0.5, create_time=NOW)
EVENTS = [
    event(RunStateChanged(state=RunState.RUNNING)),
    event(StageStarted(round=0, stage="E-step")),
    event(finished(0, 0.75), done=1),
    event(finished(1, None, rejection="EMPTY"), done=2),
    event(finished(0, 1.0, editor=Editor.PASSAGE_ONLY), done=3),
    event(PolicyTrained(round=0, policy=POLICY, kept=1), done=3),
]


def test_without_a_terminal_every_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    follow(EVENTS)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "round 1 of 2: sampling self-edits and trying them"
    assert lines[1].startswith("trial 1/4: lake-ombrel, self-edit 0: accuracy 0.75 (0.25 without an adapter)")
    assert "rejected (EMPTY)" in lines[2]
    assert "the passage alone" in lines[3]
    assert lines[4] == "round 1: policies/next trained on 1 kept self-edits, held-out accuracy 0.50"


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_milestones_stay_above_one_live_line() -> None:
    screen = Screen()
    terminal = Console(file=screen, force_terminal=True, color_system=None, width=100, _environ={"TERM": "xterm"})
    follow(EVENTS, terminal)
    shown = screen.getvalue()
    assert "policies/next trained on 1 kept self-edits" in shown
    assert "3/4 trials" in shown
    assert "accuracy so far 0.75 (no adapter 0.25)" in shown
    assert "lake-ombrel" not in shown


def test_what_went_wrong_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault(code=14, reason="UNAVAILABLE", message="trainer at 127.0.0.1:1 does not answer")
    follow([event(RunStateChanged(state=RunState.FAILED, error=fault))])
    assert "failed: trainer at 127.0.0.1:1 does not answer" in capsys.readouterr().out


def test_what_the_run_waits_for_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault(code=14, reason="UNAVAILABLE", message="Redis at redis://h answers and refuses: MISCONF")
    follow([event(RunWaiting(doing="queueing trials", error=fault)), event(RunWaiting(doing="queueing trials"))])
    shown = capsys.readouterr().out
    assert "waiting (queueing trials): Redis at redis://h answers and refuses: MISCONF" in shown
    assert "going on (queueing trials)" in shown


def test_a_round_that_kept_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    follow([event(PolicyTrained(round=1, policy=POLICY, kept=0))])
    assert "round 2: nothing helped enough to be kept" in capsys.readouterr().out


def test_the_accuracy_so_far_is_that_of_self_edits_alone() -> None:
    tally = Tally()
    for one in EVENTS:
        tally.note(one)
    assert tally.accuracy == "accuracy so far 0.75 (no adapter 0.25)"
    assert (tally.rejected, tally.done, tally.total) == (1, 3, 4)


def test_time_left_goes_by_what_this_watcher_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes late must not take the trials that were done before for a pace of theirs."""
    monkeypatch.setattr("seal_cli.follow.time.monotonic", lambda: 130.0)
    tally = Tally(began=100.0)
    tally.note(event(StageStarted(round=0, stage="E-step"), done=10, total=20))
    assert tally.seconds_left is None
    tally.note(event(finished(0, 0.5), done=12, total=20))
    assert tally.seconds_left == pytest.approx(30.0 / 2 * 8)


def test_an_interruption_comes_through() -> None:
    def watched() -> Iterator[Event]:
        yield EVENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(watched())
