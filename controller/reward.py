"""The reward: the number that selection sees."""

from __future__ import annotations

from sealkit.config import RewardConfig


def reward(gain: float, forgetting: float | None, config: RewardConfig) -> float:
    """gain - λ·forgetting, λ = `forgetting_weight`. SEAL's own reward is the gain alone (λ = 0).

    `gain` and `forgetting` are differences of accuracies, in [-1, 1]; forgetting that was not measured weighs nothing.
    """
    return gain - config.forgetting_weight * (forgetting or 0.0)
