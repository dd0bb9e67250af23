"""The next token of each row. A row's noise comes from its own seed and its own position alone, never from its place in
a batch, so the same request gives the same text in any company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sealkit.types import Sampling

_MASK = 2**64 - 1


class Sampled(Protocol):
    """What is read of a row."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def tokens(self) -> list[int]: ...


def next_tokens(logits: Tensor, rows: Sequence[Sampled]) -> list[int | None]:
    """The next token of each row from its logits [n, vocab]; None where they are not finite."""
    best, greedy = logits.max(dim=-1)
    finite = best.isfinite().tolist()
    picked: list[int | None] = [token if ok else None for token, ok in zip(greedy.tolist(), finite, strict=True)]
    for place, row in enumerate(rows):
        if finite[place] and row.sampling.temperature > 0:
            picked[place] = _draw(logits[place], row.sampling, uniform(row.sampling.seed, len(row.tokens)))
    return picked


def uniform(seed: int, counter: int) -> float:
    """The `counter`-th number in [0, 1) of the stream of `seed` (SplitMix64, Steele et al. 2014)."""
    z = _mix(seed & _MASK)
    return (_mix((z + (counter + 1) * 0x9E3779B97F4A7C15) & _MASK) >> 11) / (1 << 53)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _draw(logits: Tensor, sampling: Sampling, u: float) -> int:
    """Inverts the distribution at `u`: most probable tokens first, cut where their mass reaches `top_p`
    (Holtzman et al. 2020)."""
    # Scaled after the maximum is taken off: a tiny temperature must not make infinities.
    weights = torch.softmax((logits.float() - logits.max()) / sampling.temperature, dim=-1)
    # Tokens below this hold less than 1 - top_p together (or, with top_p 1, a 1e-8 of the mass), so the nucleus lies
    # above: only a few hundred entries need sorting.
    floor = max(1 - sampling.top_p, 1e-8) / weights.numel()
    candidates = (weights >= floor).nonzero().flatten()
    mass, order = weights[candidates].double().sort(descending=True, stable=True)
    reached = mass.cumsum(0)
    if sampling.top_p < 1:
        reached = reached[: int((reached < sampling.top_p).sum()) + 1]
    place = int(torch.searchsorted(reached, u * reached[-1], right=True))
    return int(candidates[order[min(place, len(reached) - 1)]])
