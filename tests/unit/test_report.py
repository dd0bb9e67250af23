"""The report: who is averaged over what, and when the RL step is reported to have an effect."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.report.run import build_report
from sealkit.config import CostConfig, TokenPrice
from sealkit.reports import RunReport
from sealkit.resources import Editor, Fault, PolicyVersion, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.stats import mean_estimate, paired_difference
from sealkit.types import Usage

FREE = CostConfig()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(
    name="runs/a",
    display_name="a",
    state=RunState.SUCCEEDED,
    config={},
    create_time=NOW,
    start_time=NOW,
    end_time=NOW - timedelta(hours=1),  # the clock was set back
    active_seconds=90,
)
THETA_0 = PolicyVersion(name="policies/base", run="runs/r", version=0, create_time=NOW)
THETA_1 = PolicyVersion(name="policies/a-1", run="runs/r", version=1, parent="policies/base", create_time=NOW)


def trial(context: str, accuracy: float | None, **changes: object) -> Trial:
    base = Trial(
        round=0,
        name="runs/a/rounds/0/trials/x",
        state=TrialState.SUCCEEDED,
        phase=TrialPhase.HELD_OUT,
        context_id=context,
        editor=Editor.POLICY,
        index=0,
        policy=THETA_0.name,
        accuracy=accuracy,
        baseline_accuracy=0.1,
        create_time=NOW,
    )
    return base.model_copy(update=changes)


def rows(report: RunReport) -> dict[str, float]:
    return {row.key: row.accuracy.mean for row in report.rows}


def test_contexts_weigh_alike_however_many_samples_they_have() -> None:
    report = build_report(RUN, [trial("a", 0.0), trial("a", 1.0), trial("a", 0.2), trial("b", 0.8)], [THETA_0], FREE)
    assert rows(report)["held_out.theta_0.self_edit.mean"] == pytest.approx((0.4 + 0.8) / 2)
    assert rows(report)["held_out.theta_0.self_edit.best"] == pytest.approx((1.0 + 0.8) / 2)
    assert report.wall_seconds == 90


def test_a_rejected_self_edit_counts_as_the_baseline_and_is_listed_with_its_reason() -> None:
    rejected = trial(
        "a", None, state=TrialState.REJECTED, rejection="EMPTY: the completion is empty", baseline_accuracy=None
    )
    report = build_report(RUN, [trial("a", 0.5), rejected], [THETA_0], FREE)
    assert rows(report)["held_out.theta_0.self_edit.mean"] == pytest.approx(0.3)
    assert report.trial_counts == {"succeeded": 1, "rejected: EMPTY": 1}


def test_failed_trials_are_listed_and_not_averaged() -> None:
    failed = trial("a", None, state=TrialState.FAILED, error=Fault(code=9, reason="NON_FINITE_LOSS", message="m"))
    report = build_report(RUN, [trial("a", 0.5), failed], [THETA_0], FREE)
    assert rows(report)["held_out.theta_0.self_edit.mean"] == 0.5
    assert report.trial_counts["failed: NON_FINITE_LOSS"] == 1


@pytest.mark.parametrize(
    ("after", "word"),
    [
        ([0.6, 0.7, 0.8, 0.65], "improved the self-edits:"),
        ([0.1, 0.9, 0.2, 0.7], "had no measurable effect"),
        ([0.0, 0.1, 0.0, 0.05], "made the self-edits worse"),
    ],
)
def test_the_verdict_follows_the_interval(after: list[float], word: str) -> None:
    before = [0.4, 0.5, 0.5, 0.45]
    trials = [trial(f"c{i}", score) for i, score in enumerate(before)]
    trials += [trial(f"c{i}", score, policy=THETA_1.name) for i, score in enumerate(after)]
    report = build_report(RUN, trials, [THETA_0, THETA_1], FREE)
    assert word in report.verdict
    assert report.rl_gain is not None
    assert report.rl_gain.n == 4


def test_answers_that_depend_on_their_company_widen_every_interval_and_may_undo_a_verdict() -> None:
    def report(variance: float) -> RunReport:
        trials = [trial(f"c{i}", score, batch_variant_rate=variance) for i, score in enumerate([0.4, 0.5, 0.5, 0.45])]
        after = [trial(f"c{i}", score, policy=THETA_1.name) for i, score in enumerate([0.6, 0.7, 0.8, 0.65])]
        return build_report(RUN, trials + after, [THETA_0, THETA_1], FREE)

    sure, unsure = report(0.0), report(0.1)
    assert sure.rl_gain is not None
    assert unsure.rl_gain is not None
    assert (unsure.rl_gain.mean, unsure.rl_gain.low) == (sure.rl_gain.mean, pytest.approx(sure.rl_gain.low - 0.2))
    assert "improved the self-edits:" in sure.verdict
    assert "had no measurable effect" in unsure.verdict
    for one, other in zip(sure.rows, unsure.rows, strict=True):
        assert other.accuracy.high == pytest.approx(min(1, one.accuracy.high + 0.1))


def test_without_a_second_policy_nothing_paid() -> None:
    report = build_report(RUN, [trial("a", 0.5)], [THETA_0], FREE)
    assert report.rl_gain is None
    assert "had no effect" in report.verdict


def test_intervals() -> None:
    estimate = mean_estimate([0.2, 0.4, 0.6])
    assert estimate is not None
    assert estimate.low == 0.0  # 0.4 - 4.303 * 0.2 / sqrt(3) is below the range
    assert estimate.high == pytest.approx(0.4 + 4.302653 * 0.2 / 3**0.5, rel=1e-6)
    assert mean_estimate([]) is None
    single = mean_estimate([0.3])
    assert single is not None
    assert (single.low, single.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("outside", "word"),
    [
        ([0.1, 0.2, 0.1, 0.3], "θ_1 writes better self-edits than gpt: +0"),
        ([0.9, 1.0, 0.9, 1.0], "θ_1 writes worse self-edits than gpt: -0"),
        ([0.9, 0.2, 0.9, 0.3], "θ_1 and gpt do not differ measurably"),
    ],
)
def test_the_last_policy_is_held_against_every_other_editor(outside: list[float], word: str) -> None:
    trials = [trial(f"c{i}", 0.1) for i in range(4)]
    trials += [trial(f"c{i}", score, policy=THETA_1.name) for i, score in enumerate([0.5, 0.7, 0.6, 0.6])]
    trials += [trial(f"c{i}", score, editor="gpt") for i, score in enumerate(outside)]
    trials += [trial("elsewhere", 1.0, editor="gpt"), trial("c0", 1.0, editor=Editor.PASSAGE_ONLY)]
    report = build_report(RUN, trials, [THETA_0, THETA_1], FREE)
    assert set(report.arm_gains) == {"gpt"}
    assert report.arm_gains["gpt"].n == 4, "paired by context: one that only one side has does not count"
    assert report.arm_gains["gpt"].mean == pytest.approx(0.6 - sum(outside) / 4)
    assert "The RL step improved the self-edits" in report.verdict
    assert word in report.verdict


def test_what_each_editor_cost_is_told_apart() -> None:
    wrote = Usage(prompt_tokens=100, completion_tokens=50)
    took = {"generate": wrote, "train": Usage(train_tokens=7, device_seconds=2.0)}
    prices = CostConfig(device_hour=3600.0, editors={"gpt": TokenPrice(prompt=1e6)})
    trials = [trial("a", 0.5, stage_usage=took), trial("a", 0.5, editor="gpt", stage_usage=took)]
    costs = build_report(RUN, trials, [THETA_0], prices).arm_costs
    assert (costs["policy"].money, costs["gpt"].money) == (2.0, 102.0)
    assert costs["gpt"].stages["generate"] == wrote
