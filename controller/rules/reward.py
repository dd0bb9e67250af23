"""The reward: the number that selection sees."""

from __future__ import annotations

from sealkit.config import RewardConfig
from sealkit.types import Divergence


def reward(gain: float, forgetting: float | None, divergence: Divergence | None, config: RewardConfig) -> float:
    """gain - λ·forgetting - μ·KL, λ = `forgetting_weight`, μ = `divergence_weight`. SEAL's own reward is the gain alone
    (λ = μ = 0).

    `gain` and `forgetting` are differences of accuracies, in [-1, 1]; KL is KL(base || adapted) on the fixed text, in
    nats a token, 0 or more. A quantity that was not measured counts as 0.
    """
    kl = divergence.on_fixed_text if divergence is not None else 0.0
    return gain - config.forgetting_weight * (forgetting or 0.0) - config.divergence_weight * kl
