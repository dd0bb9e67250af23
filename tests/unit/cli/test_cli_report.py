from datetime import UTC, datetime
from pathlib import Path

import pytest

from seal_cli.report import print_report
from sealkit.reports import CurvePoint, Estimate, Power, ReportRow, RunReport
from sealkit.resources import PolicyVersion, Run, RunState
from sealkit.types import Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(name="runs/r", display_name="demo", state=RunState.SUCCEEDED, config={}, create_time=NOW)

EMPTY = RunReport(
    rows=(), trial_counts={}, kept=0, trial_forgetting=None, policies=(), stage_seconds={}, rl_gain=None,
    verdict="Nothing can be said yet.", usage=Usage(), wall_seconds=0.0,
)  # fmt: skip


def row(split: str, label: str, mean: float) -> ReportRow:
    return ReportRow(key=label, label=label, split=split, accuracy=Estimate(mean=mean, low=0.1, high=0.9, n=12))


def test_the_report_says_all_that_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    report = RunReport(
        rows=(row("train", "no adapter", 0.125), row("held_out", "self-edits by θ_1, mean", 0.4)),
        trial_counts={"rejected: EMPTY": 2, "succeeded": 34},
        kept=5,
        trial_forgetting=Estimate(mean=0.02, low=-0.01, high=0.05, n=34),
        policies=(
            PolicyVersion(name="policies/base", run="runs/r", version=0, create_time=NOW),
            PolicyVersion(name="policies/r-1", run="runs/r", version=1, forgetting=0.125, create_time=NOW),
        ),
        stage_seconds={"generate": 1.25, "train": 6.0, "evaluate": 0.5},
        rl_gain=None,
        verdict="The RL step had no measurable effect in this run.",
        usage=Usage(),
        wall_seconds=185.0,
    )
    print_report(RUN, report, Path("/data/store"))
    shown = " ".join(capsys.readouterr().out.split())
    for wanted in (
        "demo · runs/r · succeeded after 3:05",
        "no adapter 0.125 0.100 – 0.900 12",
        "self-edits by θ_1, mean 0.400",
        "2 rejected: EMPTY, 34 succeeded",
        "the policy was trained on 5 self-edits",
        "+0.020 of the retention questions [-0.010, +0.050], n = 34 trials",
        "+0.125 (policies/r-1)",
        "generation 1.2 s, training 6.0 s, evaluation 0.5 s",
        "/data/store/adapters",
        "The RL step had no measurable effect in this run.",
    ):
        assert wanted in shown


def test_a_run_of_another_version_says_why_it_cannot_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(RUN.changed(unread_config=("curriculum", "editor.batch")), EMPTY, None)
    assert "this version cannot read curriculum, editor.batch" in " ".join(capsys.readouterr().out.split())
    print_report(RUN, EMPTY, None)
    assert "cannot read" not in capsys.readouterr().out


def test_a_run_that_found_nothing_yet_is_no_accident(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(RUN, EMPTY, None)
    assert "Nothing can be said yet." in capsys.readouterr().out


def test_the_curve_says_who_was_adopted_and_why_another_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    def point(mean: float, gain: float | None, reason: str = "") -> CurvePoint:
        difference = None if gain is None else Estimate(mean=gain, low=gain - 0.1, high=gain + 0.1, n=24)
        accuracy = Estimate(mean=mean, low=mean - 0.05, high=mean + 0.05, n=24)
        return CurvePoint(policy="p", accuracy=accuracy, gain=difference, adopted=not reason, reason=reason)

    curve = (point(0.125, None), point(0.5, 0.375), point(0.25, -0.25, "it got worse"), CurvePoint(policy="q"))
    power = Power(contexts=24, samples=4, deviation=0.386, detectable=0.2306, measured=True)
    print_report(RUN, EMPTY.changed(curve=curve, power=power), None)
    shown = " ".join(capsys.readouterr().out.split())
    for wanted in (
        "θ_0 0.125 0.075 – 0.175",
        "θ_1 0.500 0.450 – 0.550 +0.375 [+0.275, +0.475]",
        "θ_2 0.250 0.200 – 0.300 -0.250 [-0.350, -0.150] not adopted",
        "θ_2 is not adopted it got worse",
        "θ_3 –",
        "a difference of 0.23 or more between two policies, with 80 % probability",
        "24 held-out contexts with 4 self-edits each",
        "deviation of the differences 0.39, measured",
    ):
        assert wanted in shown, wanted
    print_report(RUN, EMPTY.changed(power=power.changed(measured=False)), None)
    assert "assumed" in " ".join(capsys.readouterr().out.split())
