"""The next token of each row. A row's random numbers depend only on its seed and position, never on its index in the
batch, so the same request gives the same text in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sealkit.backends.decoding.grammar import Grammar
from sealkit.types import Sampling

_MASK = 2**64 - 1
_COLDEST = 1e-30
"""Lower temperatures are raised to this one: either leaves only the most likely token, and float32 cannot divide by
less than 1e-38."""
_LIKELY = 1e-4
"""The tokens above this are few enough to sort quickly, and usually contain the nucleus."""


class Sampled(Protocol):
    """The fields of a row that are read here."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def tokens(self) -> list[int]: ...

    @property
    def grammar(self) -> Grammar | None: ...


def next_tokens(logits: Tensor, rows: Sequence[Sampled]) -> list[int | None]:
    """The next token of each row from its logits [n, vocab]; None for a row whose logits are not finite."""
    logits = _held_to_grammars(logits, rows)
    best, greedy = logits.max(dim=-1)
    finite = best.isfinite().tolist()
    picked: list[int | None] = [token if ok else None for token, ok in zip(greedy.tolist(), finite, strict=True)]
    for place, row in enumerate(rows):
        if finite[place] and row.sampling.temperature > 0:
            picked[place] = _draw(logits[place], row.sampling, uniform(row.sampling.seed, len(row.tokens)))
    return picked


def _held_to_grammars(logits: Tensor, rows: Sequence[Sampled]) -> Tensor:
    """The logits, set to minus infinity for tokens that a row's grammar does not allow."""
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
    # Scaled after the maximum is subtracted, so that a tiny temperature does not give infinities.
    weights = torch.softmax((logits.float() - logits.max()) / max(sampling.temperature, _COLDEST), dim=-1)
    if sampling.top_p == 1:
        return _invert(weights, u)
    candidates, mass = _above(weights, _LIKELY)
    if mass.sum() < sampling.top_p:
        # Tokens below this have less than 1 - top_p in all, so the whole nucleus is above.
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
