"""Runs, trials and reports in notebooks."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from sealkit.errors import FailedPrecondition
from sealkit.frames import curve_frame, matrix_frame, trials_frame
from sealkit.reports import Continual, CurvePoint, Estimate, ReportRow, RunReport
from sealkit.resources import Editor, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.types import Retention, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script>\x1b[2J"
MEAN = Estimate(mean=0.5, low=0.25, high=0.75, n=4)


def report(label: str = "Self-edits") -> RunReport:
    return RunReport(
        rows=(ReportRow(key="k", label=label, split="held_out", accuracy=MEAN),), trial_counts={}, kept=0,
        trial_forgetting=None, policies=(), stage_seconds={}, rl_gain=None, verdict=label, usage=Usage(),
        wall_seconds=1.0, curve=(CurvePoint(policy="policies/a-0", accuracy=MEAN), CurvePoint(policy="policies/a-1")),
        continual=Continual(contexts=("a", "b"), matrix=((0.0, None), (1.0, 0.5))),
    )  # fmt: skip


def trial(**changes: object) -> Trial:
    plain = Trial(
        name="runs/r/rounds/0/trials/a-0", round=0, state=TrialState.SUCCEEDED, phase=TrialPhase.E_STEP, context_id="a",
        editor=Editor.POLICY, index=0, policy="policies/r-0", accuracy=0.75, baseline_accuracy=0.5, create_time=NOW,
    )  # fmt: skip
    return plain.changed(**changes)


def test_a_frame_of_trials_has_gain_and_lost_questions() -> None:
    lost = Retention(kept=4, accuracy_before=1, accuracy_after=0.5, forgetting=0.5, lost_query_ids=("q", "r"))
    frame = trials_frame([trial(retention=lost), trial(state=TrialState.REJECTED, accuracy=None)])
    assert frame["gain"].iloc[0] == 0.25
    assert frame["lost"].iloc[0] == 2
    assert frame[["gain", "lost"]].iloc[1].isna().all()
    assert list(trials_frame([]).columns) == list(frame.columns)


def test_frames_of_a_report_have_its_numbers() -> None:
    found = report()
    row = ("Self-edits", "held_out", 0.5, 0.25, 0.75, 4)
    assert list(found.to_pandas().itertuples(index=False, name=None)) == [row]
    curve = curve_frame(found)
    assert list(curve["policy"]) == ["policies/a-0", "policies/a-1"]
    assert curve["accuracy"].isna().tolist() == [False, True]
    matrix = matrix_frame(found)
    assert matrix.loc[1].tolist() == [1.0, 0.5]
    assert (list(matrix.columns), matrix.index.name) == (["a", "b"], "commit")
    assert matrix_frame(found.changed(continual=None)).empty


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'seal-suite\[notebook\]'"):
        report().to_pandas()


def test_tables_of_a_notebook_hold_only_text() -> None:
    run = Run(name="runs/r", display_name=HOSTILE, state=RunState.RUNNING, config={}, create_time=NOW)
    for shown in (run._repr_html_(), report(HOSTILE)._repr_html_()):
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown
        assert "\x1b" not in shown
    assert "0.250 – 0.750" in report()._repr_html_()
