"""Selection: which trials of a group teach the next policy. Each rule is a pure function from scores to kept indices.

`best_of_k` is SEAL's rule for passages (the best of five by mean accuracy), `positive` its binary ReST^EM rule for
ARC (arXiv 2506.10943), and `significant` keeps what beats the baseline beyond chance: McNemar's exact paired test on
the verdicts of the same questions, with Holm's step-down over the completions of the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from sealkit.stats import holm, mcnemar


@dataclass(frozen=True, slots=True)
class PairedVerdicts:
    """One trial against the baseline, question by question, in the same order.

    Attributes:
        adapter: Whether the adapter answered each question right; None where the judge gave no verdict.
        baseline: The same for the policy without the adapter.

    Raises:
        ValueError: The two differ in length.
    """

    adapter: tuple[bool | None, ...]
    baseline: tuple[bool | None, ...]

    def __post_init__(self) -> None:
        if len(self.adapter) != len(self.baseline):
            raise ValueError(f"{len(self.adapter)} adapter verdicts cannot be paired with {len(self.baseline)}")

    @property
    def won(self) -> int:
        """Questions that only the adapter got right; a question without both verdicts tells nothing."""
        return sum(a is True and b is False for a, b in zip(self.adapter, self.baseline, strict=True))

    @property
    def lost(self) -> int:
        """Questions that only the baseline got right."""
        return sum(a is False and b is True for a, b in zip(self.adapter, self.baseline, strict=True))


def best_of_k(rewards: Sequence[float | None]) -> list[int]:
    """Keep the trial with the highest reward, the first of them on ties.

    Args:
        rewards: One reward a trial, in the group's order; None for a trial that was rejected or not graded.

    Returns:
        The one kept index, or nothing when no trial has a reward.

    Raises:
        ValueError: A reward is not a number.
    """
    scored = _scored(rewards)
    return [max(scored, key=lambda pair: pair[1])[0]] if scored else []  # max() returns the first of equals


def positive(rewards: Sequence[float | None]) -> list[int]:
    """Keep every trial with a reward above zero (binary ReST^EM); None never counts.

    Returns:
        The kept indices, ascending.

    Raises:
        ValueError: A reward is not a number.
    """
    return [index for index, reward in _scored(rewards) if reward > 0]


def _scored(rewards: Sequence[float | None]) -> list[tuple[int, float]]:
    """Pair each present reward with its index; NaN would make a choice that depends on the order."""
    scored = [(index, reward) for index, reward in enumerate(rewards) if reward is not None]
    for index, reward in scored:
        if isnan(reward):
            raise ValueError(f"the reward of trial {index} is not a number")
    return scored


def paired_p_value(verdicts: PairedVerdicts) -> float:
    """Return the one-sided exact McNemar p-value that the adapter is no better than the baseline."""
    return mcnemar(verdicts.won, verdicts.lost)


def significant(trials: Sequence[PairedVerdicts | None], *, alpha: float = 0.05) -> list[int]:
    """Keep every trial that beats the baseline at family-wise level alpha (Holm 1979 over the trials of the group).

    Args:
        trials: One entry a trial, in the group's order; None for one that was rejected or not graded, which does not
            count as a comparison.
        alpha: The chance, 0 < alpha < 1, of keeping any trial when none is better than the baseline.

    Returns:
        The kept indices, ascending.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    compared = [(index, trial) for index, trial in enumerate(trials) if trial is not None]
    adjusted = holm([paired_p_value(trial) for _, trial in compared])
    return [index for (index, _), p_value in zip(compared, adjusted, strict=True) if p_value <= alpha]
