"""The next token: the distribution that temperature and top_p ask for, from the row's own seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch

from sealkit.backends.decoding.sampling import next_tokens, uniform
from sealkit.types import Sampling

PROBABILITIES = torch.tensor([0.05, 0.5, 0.15, 0.3])


@dataclass
class Row:
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    grammar: None = None


def draw(n: int, **sampling: float) -> Counter[int | None]:
    rows = [Row(Sampling(seed=seed, **sampling)) for seed in range(n)]
    return Counter(next_tokens(PROBABILITIES.log().repeat(n, 1), rows))


def test_frequencies_follow_the_probabilities() -> None:
    counts = draw(4000)
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx(PROBABILITIES.tolist(), abs=0.03)


def test_top_p_keeps_the_fewest_tokens_whose_mass_reaches_it() -> None:
    assert set(draw(400, top_p=0.75)) == {1, 3}
    assert set(draw(400, top_p=0.85)) == {1, 2, 3}
    assert set(draw(400, top_p=0.3)) == {1}


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    assert draw(400, temperature=0) == {1: 400}
    assert draw(4000, temperature=0.5)[1] / 4000 == pytest.approx(0.25 / 0.365, abs=0.03)
    assert draw(100, temperature=1e-6) == {1: 100}


def test_logits_that_are_not_finite_give_no_token() -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0], [float("inf"), 0.0]])
    assert next_tokens(logits, [Row(Sampling(temperature=0))] * 3) == [None, 1, None]


def test_the_noise_is_even_and_unlike_between_seeds_and_steps() -> None:
    numbers = [uniform(seed, step) for seed in range(60) for step in range(60)]
    assert len(set(numbers)) == 3600
    assert sum(numbers) / 3600 == pytest.approx(0.5, abs=0.02)
    assert sum(n < 0.1 for n in numbers) / 3600 == pytest.approx(0.1, abs=0.02)
