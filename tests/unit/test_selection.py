"""Selection rules: what is kept, on ties, without rewards, and under many comparisons."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rules.selection import RULES, PairedVerdicts, best_of_k, every, paired_p_value, positive, significant
from sealkit.config import SelectionConfig

rewards = st.lists(st.none() | st.floats(-1, 1), max_size=8)
verdict = st.none() | st.booleans()
paired = st.lists(st.tuples(verdict, verdict), max_size=12).map(
    lambda pairs: PairedVerdicts(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
)


def wins(won: int, lost: int = 0) -> PairedVerdicts:
    """A trial that won and lost so many questions, and agrees with the baseline on two more."""
    return PairedVerdicts(
        (True,) * won + (False,) * lost + (True, False), (False,) * won + (True,) * lost + (True, False)
    )


def test_the_config_has_the_names_of_all_rules() -> None:
    assert set(get_args(SelectionConfig.model_fields["rule"].annotation)) == set(RULES)


@pytest.mark.parametrize(
    ("given_rewards", "kept"),
    [
        ([], []),
        ([None, None], []),
        ([0.2, 0.5, 0.5], [1]),
        ([None, -0.3], [1]),
        ([0.0, None, 0.0], [0]),
        ([-1.0, -0.5], [1]),
    ],
)
def test_best_of_k(given_rewards: list[float | None], kept: list[int]) -> None:
    assert best_of_k(given_rewards) == kept


@pytest.mark.parametrize("rule", [best_of_k, every, positive])
def test_nan_is_a_fault_not_a_reward(rule: object) -> None:
    with pytest.raises(ValueError, match="trial 1"):
        rule([0.1, math.nan])  # type: ignore[operator]


def test_positive_leaves_out_zero_and_ungraded() -> None:
    assert positive([0.0, 0.1, None, -0.2, 1.0]) == [1, 4]


def test_without_a_filter_only_what_has_no_reward_is_left_out() -> None:
    assert every([0.0, 0.1, None, -0.2]) == [0, 1, 3]


@given(rewards)
def test_best_of_k_is_the_first_maximum(given_rewards: list[float | None]) -> None:
    kept = best_of_k(given_rewards)
    graded = [reward for reward in given_rewards if reward is not None]
    assert len(kept) == bool(graded)
    if kept:
        assert given_rewards[kept[0]] == max(graded)
        assert max(graded) not in given_rewards[: kept[0]]


@given(rewards)
def test_positive_keeps_the_best_when_it_helped(given_rewards: list[float | None]) -> None:
    kept = positive(given_rewards)
    best = best_of_k(given_rewards)
    if kept:
        assert best[0] in kept
    assert kept == sorted(set(kept))


def test_p_value_is_the_binomial_tail() -> None:
    assert paired_p_value(wins(5)) == pytest.approx(1 / 32)
    assert paired_p_value(wins(3, 1)) == pytest.approx(5 / 16)
    assert paired_p_value(wins(0)) == 1.0


def test_a_question_without_both_verdicts_tells_nothing() -> None:
    padded = PairedVerdicts((True,) * 5 + (True, None, None), (False,) * 5 + (None, False, None))
    assert paired_p_value(padded) == paired_p_value(wins(5))


def test_more_completions_need_stronger_evidence() -> None:
    assert significant([wins(5)]) == [0]
    assert significant([wins(5), wins(0)]) == []
    assert significant([wins(5), None]) == [0]


def test_holm_relaxes_after_each_success() -> None:
    # 1/64 passes at .05/2, then 1/32 passes at .05/1; plain Bonferroni would drop the second.
    assert significant([wins(5), wins(6)]) == [0, 1]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_must_be_a_chance(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        significant([wins(5)], alpha=alpha)


def test_verdicts_must_pair() -> None:
    with pytest.raises(ValueError, match="paired"):
        PairedVerdicts((True,), ())


@given(st.lists(st.none() | paired, max_size=6), st.floats(0.01, 0.5), st.floats(0.01, 0.49))
def test_significant_keeps_only_winners_and_grows_with_alpha(
    trials: list[PairedVerdicts | None], alpha: float, more: float
) -> None:
    kept = significant(trials, alpha=alpha)
    assert kept == sorted(set(kept))
    for index in kept:
        trial = trials[index]
        assert trial is not None
        assert trial.won > trial.lost
        assert paired_p_value(trial) <= alpha
    assert set(kept) <= set(significant(trials, alpha=alpha + more))


@given(paired)
def test_p_value_is_a_chance_and_falls_with_each_win(trial: PairedVerdicts) -> None:
    better = PairedVerdicts((*trial.adapter, True), (*trial.baseline, False))
    assert 0 < paired_p_value(better) <= paired_p_value(trial) <= 1
