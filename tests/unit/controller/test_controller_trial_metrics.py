"""What Prometheus hears of a trial that ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from controller.trial.metrics import count_trial
from sealkit.resources import Editor, Trial, TrialPhase, TrialState

TRIAL = Trial(
    round=0,
    name="runs/a/rounds/0/trials/x",
    state=TrialState.SUCCEEDED,
    phase=TrialPhase.E_STEP,
    context_id="c",
    editor=Editor.POLICY,
    index=0,
    policy="policies/base",
    create_time=datetime(2026, 1, 1, tzinfo=UTC),
)
METRICS = {"seal_reward": ("0.25", "0.5"), "seal_gain": ("0.25", "0.5"), "seal_forgetting": ("-0.25", "-0.1")}
"""Name: two neighbouring buckets. There are no sums: prometheus_client leaves them out of what may be negative."""


def heard(trial: Trial) -> dict[str, int]:
    """How much counting the trial adds between the two buckets."""

    def between() -> dict[str, float]:
        counts = {
            name: [REGISTRY.get_sample_value(f"{name}_bucket", {"le": end}) or 0.0 for end in ends]
            for name, ends in METRICS.items()
        }
        return {name: above - below for name, (below, above) in counts.items()}

    before = between()
    count_trial(trial)
    return {name: int(count - before[name]) for name, count in between().items()}


def test_reward_gain_and_forgetting_of_a_trial_are_observed() -> None:
    scored = {"accuracy": 0.75, "baseline_accuracy": 0.25, "reward": 0.375, "forgetting": -0.125}
    assert heard(TRIAL.model_copy(update=scored)) == {"seal_reward": 1, "seal_gain": 1, "seal_forgetting": 1}


def test_a_trial_is_timed_from_its_row_to_its_end() -> None:
    name, before = "seal_trial_whole_seconds", REGISTRY.get_sample_value("seal_trial_whole_seconds_sum") or 0.0
    count_trial(TRIAL.model_copy(update={"end_time": TRIAL.create_time + timedelta(seconds=90)}))
    assert (REGISTRY.get_sample_value(f"{name}_sum") or 0.0) - before == pytest.approx(90)


def test_what_a_trial_does_not_have_is_not_observed() -> None:
    failed = TRIAL.model_copy(update={"state": TrialState.FAILED})
    assert heard(failed) == {"seal_reward": 0, "seal_gain": 0, "seal_forgetting": 0}
