from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from seal_cli.follow import follow
from seal_cli.live import LiveView, time_left
from seal_cli.tally import Tally
from sealkit.pace import TimeLeft
from sealkit.report_page.labels import duration
from sealkit.reports import Pace
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
from sealkit.types import Retention

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: EventKind, done: int = 0, total: int = 4, seconds: float = 0.0) -> Event:
    progress = RunProgress(rounds_total=2, trials_done=done, trials_total=total)
    return Event(cursor=str(done), time=NOW + timedelta(seconds=seconds), progress=progress, kind=kind)


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


def terminal(width: int = 80) -> Console:
    return Console(file=Screen(), force_terminal=True, color_system=None, width=width, _environ={"TERM": "xterm"})


def drawn(tally: Tally, width: int = 80) -> list[str]:
    """The lines of the live view."""
    console = terminal(width)
    console.print(LiveView(tally, console).render())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def tallied(events: list[Event], earlier: Pace | None = None, clock: Callable[[], float] = lambda: 0.0) -> Tally:
    tally = Tally(earlier, clock)
    for one in events:
        tally.note(one)
    return tally


def test_on_a_terminal_the_milestones_stay_above_one_live_view() -> None:
    console = terminal()
    follow(EVENTS, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "policies/next trained on 1 kept self-edits" in shown
    assert "3/4 trials" in shown
    assert "accuracy so far 0.75 (no adapter 0.25) · 1 rejected" in shown


def test_the_view_shows_round_stage_bar_and_the_last_results() -> None:
    retention = Retention(
        accuracy_before=1, accuracy_after=0.8, forgetting=0.2, forgetting_low=0, forgetting_high=0.4, kept=10,
        lost_query_ids=("q1", "q2"),
    )  # fmt: skip
    lost = finished(2, 0.5)
    lost = lost.changed(trial=lost.trial.changed(retention=retention))
    lines = drawn(tallied([*EVENTS, event(lost, done=4)]))
    assert lines[0].startswith("round 1 of 2 · sampling self-edits and trying them")
    assert "4/4 trials" in lines[1]
    assert lines[3].split() == ["last", "results", "accuracy", "gain", "lost"]
    assert lines[4].split() == ["lake-ombrel,", "self-edit", "0", "0.75", "+0.50"]
    assert lines[5].strip() == "rejected (EMPTY): lake-ombrel, self-edit 1"
    assert lines[7].split() == ["lake-ombrel,", "self-edit", "2", "0.50", "+0.25", "2", "of", "10"]


@pytest.mark.parametrize("width", [80, 60])
def test_no_line_is_wider_than_the_terminal_and_nothing_controls_it(width: int) -> None:
    """Longest names, reasons of waits with control characters, wide letters."""
    long = finished(0, 0.5)
    long = long.changed(trial=long.trial.changed(context_id="名\x1b[2J" * 60, editor="somebody-else" * 5))
    fault = Fault(code=14, reason="UNAVAILABLE", message="trainer at a\x1b[31m does not answer; " * 9)
    events = [*EVENTS, event(long, done=3), event(RunWaiting(doing="training", error=fault), done=3)]
    lines = drawn(tallied(events, Pace(start_seconds=1, trial_seconds=9, round_seconds=9)), width)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 12
    assert not any("\x1b" in line for line in lines)
    assert lines[-1].startswith("waiting (training): trainer at a\\x1b[31m does not answer")


def test_the_view_says_what_happens_before_the_first_stage() -> None:
    queued = event(RunStateChanged(state=RunState.QUEUED))
    behind = queued.changed(progress=RunProgress(stage="queued behind runs/a, on aliases/b"))
    assert drawn(tallied([queued]))[0].startswith("waiting for a worker")
    assert drawn(tallied([behind]))[0].startswith("queued behind runs/a, on aliases/b")
    running = event(RunStateChanged(state=RunState.RUNNING))
    assert drawn(tallied([queued, running]))[0].startswith("measuring the policy to start from")


def test_a_wait_is_shown_until_it_is_over() -> None:
    fault = Fault(code=14, reason="UNAVAILABLE", message="no worker is running")
    waiting = [EVENTS[0], event(RunWaiting(doing="looking for a worker", error=fault))]
    assert drawn(tallied(waiting))[-1].rstrip() == "waiting (looking for a worker): no worker is running"
    over = event(RunWaiting(doing="looking for a worker"))
    assert not any("waiting (" in line for line in drawn(tallied([*waiting, over])))


def test_the_times_advance_between_events() -> None:
    """Of 100 trials at 6 s each and two rounds at 60 s; a watcher who comes late sees the same."""
    now = 0.0
    earlier = Pace(start_seconds=90, trial_seconds=6, round_seconds=60)
    started = [
        event(RunStateChanged(state=RunState.QUEUED), total=100),
        event(RunStateChanged(state=RunState.RUNNING), total=100, seconds=10),
        event(StageStarted(round=0, stage="E-step"), total=100, seconds=20),
    ]
    tally = tallied(started, earlier, lambda: now)
    left = tally.left
    assert left is not None
    assert left.high is not None
    assert (left.low + left.high) / 2 == pytest.approx(100 * 6 + 2 * 60 + 80)
    assert tally.age == 20
    now = 30.0
    later = tally.left
    assert later is not None
    assert left.low - later.low == pytest.approx(30)
    assert tally.age == 50
    assert drawn(tally)[0].endswith("50 s")
    assert "left" in drawn(tally)[1]


def test_the_time_left_says_how_well_it_is_known() -> None:
    wanted = {
        TimeLeft(500, 620): "about 9 min left",
        TimeLeft(240, 560): "4–9 min left",
        TimeLeft(30, 100): "30 s–2 min left",
        TimeLeft(3000, 9000): "50 min–2 h 30 min left",
        TimeLeft(9000, 27000): "2 h 30 min–7 h 30 min left",
        TimeLeft(200, None): "at least 3 min left",
        None: "",
    }
    assert {left: time_left(left) for left in wanted} == wanted


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
    tally = tallied(EVENTS)
    assert tally.accuracy == "accuracy so far 0.75 (no adapter 0.25)"
    assert (tally.rejected, tally.progress.trials_done, tally.progress.trials_total) == (1, 3, 4)


def test_from_the_latest_events_it_is_that_of_the_last_ones() -> None:
    tally = tallied([EVENTS[0], event(finished(7, 0.5), done=1800, total=2000), event(finished(8, 0.7), done=1801)])
    assert tally.accuracy == "accuracy of the last 2: 0.60 (no adapter 0.25)"


def test_a_plain_line_has_one_number_for_the_time_left_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    begun = [event(RunStateChanged(state=RunState.RUNNING)), event(StageStarted(round=0, stage="E-step"))]
    ends = [event(finished(n, 0.5), done=n, total=80, seconds=60 + 5 * n) for n in range(1, 41)]
    follow([*begun, *ends], earlier=Pace(start_seconds=65, trial_seconds=5, round_seconds=10))
    lines = capsys.readouterr().out.splitlines()
    assert "left" not in lines[1], "two minutes or five: not known yet"
    assert lines[-1].endswith(f"; about {duration(40 * 5 + 20)} left")


def test_an_interruption_comes_through() -> None:
    def watched() -> Iterator[Event]:
        yield EVENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(watched())
