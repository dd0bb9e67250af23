"""Selection as the config asks for it, and the reward."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rules.reward import reward
from controller.rules.selection import BothVerdicts, Group, chosen
from sealkit.config import RewardConfig, SelectionConfig
from sealkit.resources import Editor, Trial, TrialPhase, TrialState
from sealkit.types import Divergence, Outcome, Verdict

LETTER = SelectionConfig(must_gain=False, must_beat_passage_only=False)
"""SEAL to the letter."""


def trial(index: int, score: float | None, *, base: float = 0.25, state: TrialState = TrialState.SUCCEEDED) -> Trial:
    return Trial(
        round=0,
        name=f"t{index}", state=state, phase=TrialPhase.E_STEP, context_id="c", editor=Editor.POLICY, index=index,
        policy="p", accuracy=score, baseline_accuracy=base, reward=None if score is None else score - base,
        create_time=datetime.now(UTC),
    )  # fmt: skip


def kept(group: Group, config: SelectionConfig, verdicts: dict[str, BothVerdicts] | None = None) -> list[int]:
    return [t.index for t in chosen(group, config, verdicts or {})]


def test_best_of_k_keeps_the_first_best() -> None:
    assert kept(Group([trial(0, 0.5), trial(1, 0.75), trial(2, 0.75)], None), LETTER) == [1]


def test_positive_keeps_what_gained() -> None:
    config = LETTER.model_copy(update={"rule": "positive"})
    assert kept(Group([trial(0, 0.5), trial(1, 0.25), trial(2, 0.0), trial(3, 1.0)], None), config) == [0, 3]


@pytest.mark.parametrize("state", [TrialState.REJECTED, TrialState.FAILED, TrialState.CANCELLED])
def test_what_did_not_succeed_is_never_kept(state: TrialState) -> None:
    assert kept(Group([trial(0, 1.0, state=state), trial(1, 0.5)], None), LETTER) == [1]
    assert kept(Group([trial(0, 1.0, state=state)], None), LETTER) == []


def test_the_best_is_not_kept_where_it_gained_nothing() -> None:
    gate = LETTER.model_copy(update={"must_gain": True})
    group = Group([trial(0, 0.25), trial(1, 0.1)], None)
    assert kept(group, LETTER) == [0]
    assert kept(group, gate) == []


def test_the_best_is_not_kept_where_the_raw_passage_is_as_good() -> None:
    gate = LETTER.model_copy(update={"must_beat_passage_only": True})
    edits = [trial(0, 0.75), trial(1, 0.5)]
    assert kept(Group(edits, trial(9, 0.5)), gate) == [0]
    assert kept(Group(edits, trial(9, 0.75)), gate) == []
    assert kept(Group(edits, trial(9, None, state=TrialState.FAILED)), gate) == []
    assert kept(Group(edits, None), gate) == []


def test_significant_compares_question_by_question_and_leaves_ungraded_ones_out() -> None:
    config = LETTER.model_copy(update={"rule": "significant"})
    right, wrong, none = Outcome.CORRECT, Outcome.INCORRECT, Outcome.UNGRADED

    def verdicts(outcomes: list[Outcome]) -> tuple[Verdict, ...]:
        return tuple(Verdict(query_id=str(i), answer="", outcome=outcome) for i, outcome in enumerate(outcomes))

    base = verdicts([wrong] * 8)
    found = {
        "t0": (verdicts([right] * 8), base),
        "t1": (verdicts([right] * 4 + [wrong] * 4), base),
        "t2": (verdicts([right] * 4 + [none] * 4), base),
    }
    group = Group([trial(0, 1.0), trial(1, 0.5), trial(2, 1.0)], None)
    assert kept(group, config, found) == [0]


small = st.floats(-1, 1)
amount = st.floats(0, 10)


@given(gain=small, forgetting=st.none() | small, kl=st.none() | amount, weights=st.tuples(amount, amount))
def test_reward_is_linear_in_what_was_measured(
    gain: float, forgetting: float | None, kl: float | None, weights: tuple[float, float]
) -> None:
    divergence = None if kl is None else Divergence(on_queries=9.0, on_fixed_text=kl)
    config = RewardConfig(forgetting_weight=weights[0], divergence_weight=weights[1])
    lost, apart = forgetting or 0.0, kl or 0.0
    assert reward(gain, forgetting, divergence, config) == pytest.approx(gain - weights[0] * lost - weights[1] * apart)
    assert reward(gain, forgetting, divergence, RewardConfig()) == gain


@given(gain=small, less=st.floats(0, 1), more=st.floats(0, 1), weight=amount)
def test_who_forgets_more_or_drifts_further_is_never_rewarded_more(
    gain: float, less: float, more: float, weight: float
) -> None:
    less, more = sorted((less, more))
    config = RewardConfig(forgetting_weight=weight, divergence_weight=weight)
    near, far = (Divergence(on_fixed_text=kl) for kl in (less, more))
    assert reward(gain, more, None, config) <= reward(gain, less, None, config)
    assert reward(gain, None, far, config) <= reward(gain, None, near, config)
