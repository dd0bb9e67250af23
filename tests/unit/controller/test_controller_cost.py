"""What a run cost: sums that agree, rates that mean something, money where there are prices."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.report.cost import M_STEP, UNSPLIT, cost_of, round_costs
from controller.report.run import build_report
from sealkit.config import CostConfig
from sealkit.resources import PolicyVersion, Trial, TrialPhase, TrialState
from sealkit.types import Usage
from tests.unit.controller.controller_system import System
from tests.unit.controller.rerun_fakes import ASKED, SAMPLED, TRAINED, TellingServices

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FREE = CostConfig()
STAGES = {"generate": SAMPLED, "train": TRAINED, "evaluate": ASKED}
TAUGHT = Usage(train_tokens=1000, device_seconds=10.0)


def trial(
    number: int,
    *,
    round_index: int = 0,
    gain: float | None = 0.25,
    phase: TrialPhase = TrialPhase.E_STEP,
    policy: str = "policies/r-0",
    editor: str = "policy",
    selected: bool = False,
    stages: dict[str, Usage] | None = None,
) -> Trial:
    """`gain` None: a rejected one."""
    took = STAGES if stages is None else stages
    return Trial(
        round=round_index,
        name=f"runs/r/rounds/{round_index}/trials/{number}",
        state=TrialState.REJECTED if gain is None else TrialState.SUCCEEDED,
        phase=phase,
        context_id=f"c{number}",
        editor=editor,
        index=0,
        policy=policy,
        accuracy=None if gain is None else 0.5 + gain,
        baseline_accuracy=0.5,
        selected=selected,
        stage_usage=took,
        usage=sum(took.values(), Usage()),
        create_time=NOW,
    )


POLICIES = [
    PolicyVersion(name="policies/r-0", run="runs/r", version=0, create_time=NOW),
    PolicyVersion(name="policies/r-1", run="runs/r", version=1, round=0, create_time=NOW, usage=TAUGHT),
]


def test_stages_add_up_to_what_was_taken_and_rounds_to_the_run() -> None:
    trials = [trial(0), trial(1, editor="passage_only"), trial(2, round_index=1), trial(3, gain=None)]
    cost, by_round = cost_of(trials, POLICIES, FREE), round_costs(trials, POLICIES, FREE)
    assert cost.stages["train"] == Usage(train_tokens=160, device_seconds=8.0)
    assert cost.stages[M_STEP] == TAUGHT == by_round[0].stages[M_STEP]
    assert M_STEP not in by_round[1].stages
    for stage, usage in cost.stages.items():
        assert sum((c.stages.get(stage, Usage()) for c in by_round.values()), Usage()) == usage
    assert cost.money is None, "nothing has a price"


def test_what_an_accepted_self_edit_and_a_point_of_gain_cost() -> None:
    trials = [
        trial(0, selected=True),
        trial(1, selected=True),
        trial(2, phase=TrialPhase.HELD_OUT, gain=0.5, policy="policies/r-0"),
        trial(2, phase=TrialPhase.HELD_OUT, gain=0.25, policy="policies/r-1"),
        trial(3, phase=TrialPhase.HELD_OUT, gain=None, policy="policies/r-1"),
    ]
    cost = cost_of(trials, POLICIES, FREE)
    seconds = 5 * 3.5 + 10.0
    assert cost.accepted == 2
    assert cost.device_seconds_per_accepted == pytest.approx(seconds / 2)
    assert cost.tokens_per_accepted == pytest.approx((5 * 101 + 1000) / 2)
    gain_in_points = 100 * (0.25 + 0.0) / 2
    assert cost.device_seconds_per_point == pytest.approx(seconds / gain_in_points), (
        "the last policy, held-out contexts"
    )


def test_without_anything_to_divide_by_there_is_no_rate() -> None:
    cost = cost_of([trial(0, gain=-0.25)], POLICIES[:1], FREE)
    assert cost.device_seconds_per_accepted is None
    assert cost.tokens_per_accepted is None
    assert cost.device_seconds_per_point is None
    assert cost_of([], [], FREE).stages == {}


def test_reruns_count_for_nothing_and_old_trials_in_one_lump() -> None:
    old = trial(1).model_copy(update={"stage_usage": {}})
    cost = cost_of([trial(0), old, trial(2, phase=TrialPhase.RERUN)], [], FREE)
    assert cost.stages[UNSPLIT] == old.usage
    assert sum(cost.stages.values(), Usage()).device_seconds == 7.0


def test_money_is_device_hours_and_the_tokens_of_those_editors_that_have_a_price() -> None:
    prices = CostConfig(
        currency="EUR", device_hour=3.6, editors={"gpt": {"prompt": 1_000_000.0, "completion": 2_000_000.0}}
    )
    trials = [trial(0), trial(1, editor="gpt")]
    cost = cost_of(trials, [], prices)
    assert cost.currency == "EUR"
    assert cost.money == pytest.approx(7.0 / 3600 * 3.6 + 20 + 2 * 5)


@given(st.lists(st.sampled_from(["policy", "passage_only", "base"]), max_size=12), st.integers(1, 3))
def test_no_trial_is_lost_or_counted_twice_between_rounds(editors: list[str], rounds: int) -> None:
    trials = [trial(n, round_index=n % rounds, editor=editor) for n, editor in enumerate(editors)]
    whole, split = cost_of(trials, POLICIES, FREE), round_costs(trials, POLICIES, FREE)
    each = [sum(cost.stages.values(), Usage()) for cost in split.values()]
    assert sum(usage.tokens for usage in each) == sum(usage.tokens for usage in whole.stages.values())


async def test_a_real_runs_cost_is_what_its_services_told(system: System) -> None:
    system.services = services = TellingServices()
    cost = {"device_hour": 3600.0, "currency": "EUR"}
    run = await system.create(rounds=1, cost=cost)
    async with system.working():
        run = await system.until(run)
    trials = await system.trials(run)
    report = build_report(run, trials, await system.policies(run), CostConfig(**cost))
    trained = sum(trial.adapter is not None for trial in trials)
    assert report.cost.stages["generate"].completion_tokens == 5 * services.calls["sample"]
    assert report.cost.stages["train"].train_tokens == 40 * trained
    assert report.cost.stages[M_STEP].train_tokens == 10, "the M-step's bill is the run's too"
    assert report.cost.money == pytest.approx(sum(u.device_seconds for u in report.cost.stages.values()))
    assert sum(report.cost.stages.values(), Usage()) == report.usage
