"""The next token of each row. A row's noise comes from its own seed and its own position alone, never from its place in
a batch, so the same request gives the same text in any company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sealkit.backends.decoding.grammar import Grammar
from sealkit.types import Sampling

_MASK = 2**64 - 1
_COLDEST = 1e-30
"""A lower temperature is this one: at either the likeliest token alone is left, and float32 has nothing to divide by
below 1e-38."""
_LIKELY = 1e-4
"""Tokens above this are few enough to sort in no time, and mostly hold the nucleus."""


class Sampled(Protocol):
    """What is read of a row."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def tokens(self) -> list[int]: ...

    @property
    def grammar(self) -> Grammar | None: ...


def next_tokens(logits: Tensor, rows: Sequence[Sampled]) -> list[int | None]:
    """The next token of each row from its logits [n, vocab]; None where they are not finite."""
    logits = _held_to_grammars(logits, rows)
    best, greedy = logits.max(dim=-1)
    finite = best.isfinite().tolist()
    picked: list[int | None] = [token if ok else None for token, ok in zip(greedy.tolist(), finite, strict=True)]
    for place, row in enumerate(rows):
        if finite[place] and row.sampling.temperature > 0:
            picked[place] = _draw(logits[place], row.sampling, uniform(row.sampling.seed, len(row.tokens)))
    return picked


def _held_to_grammars(logits: Tensor, rows: Sequence[Sampled]) -> Tensor:
    """The logits, minus infinity where a row's grammar does not allow a token."""
    held = {place: row.grammar for place, row in enumerate(rows) if row.grammar is not None}
    if not held:
        return logits
    logits = logits.clone()
    for place, grammar in held.items():
        logits[place].masked_fill_(~grammar.allowed(logits.shape[-1]).to(logits.device), float("-inf"))
    return logits


def uniform(seed: int, counter: int) -> float:
    """The `counter`-th number in [0, 1) of the stream of `seed` (SplitMix64, Steele et al. 2014)."""
    z = _mix(seed & _MASK)
    return (_mix((z + (counter + 1) * 0x9E3779B97F4A7C15) & _MASK) >> 11) / (1 << 53)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _draw(logits: Tensor, sampling: Sampling, u: float) -> int:
    """Inverts the distribution at `u`; with `top_p` that of the most probable tokens, cut where their mass reaches it
    (Holtzman et al. 2020)."""
    # Scaled after the maximum is taken off: a tiny temperature must not make infinities.
    weights = torch.softmax((logits.float() - logits.max()) / max(sampling.temperature, _COLDEST), dim=-1)
    if sampling.top_p == 1:
        return _invert(weights, u)
    candidates, mass = _above(weights, _LIKELY)
    if mass.sum() < sampling.top_p:
        # Tokens below this hold less than 1 - top_p together, so all of the nucleus lies above.
        candidates, mass = _above(weights, (1 - sampling.top_p) / weights.numel())
    mass, order = mass.sort(descending=True, stable=True)
    nucleus = int((mass.cumsum(0) < sampling.top_p).sum()) + 1
    return int(candidates[order[_invert(mass[:nucleus], u)]])


def _above(weights: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    candidates = (weights >= floor).nonzero().flatten()
    return candidates, weights[candidates].double()


def _invert(mass: Tensor, u: float) -> int:
    reached = mass.double().cumsum(0)
    place = int(torch.searchsorted(reached, u * reached[-1], right=True))
    return min(place, len(mass) - 1)
