"""Cross-entropy, and KL to the unadapted model, with their gradients in one pass over the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_ELEMENTS = 1 << 23
"""Logits held at a time: no more than a few rows of a large vocabulary's, whatever the step's size."""


@dataclass(frozen=True)
class Goal:
    """What the label rows of a step are to minimise: the sum of weights · CE(row, targets) + kl_weights · KL(reference
    row || row). All [labels]; `reference` [labels, …] stands for rows of logits as the step's own rows do, and is None
    where no row has a KL weight."""

    targets: Tensor
    weights: Tensor
    kl_weights: Tensor
    reference: Tensor | None


@torch.no_grad()
def head_gradient(hidden: Tensor, weight: Tensor, bias: Tensor | None, goal: Goal) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row [labels], in nats (float32, or float64 for float64 weights), and the goal's gradient by
    `hidden` [labels, features], where logits are weight @ hidden + bias. Never holds all logits."""
    gradient = torch.empty_like(hidden)
    entropies = []
    for rows in _chunks(len(hidden), weight.shape[0]):

        def logits(of: Tensor, rows: slice = rows) -> Tensor:
            return functional.linear(of[rows].to(weight.dtype), weight, bias)

        entropy, d_logits = _rows_gradient(logits(hidden), rows, goal, logits)
        entropies.append(entropy)
        gradient[rows] = d_logits.to(weight.dtype) @ weight
    return torch.cat(entropies), gradient


@torch.no_grad()
def logits_gradient(logits: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """As `head_gradient`, by the logits [labels, vocabulary] themselves."""
    gradient = torch.empty_like(logits)
    entropies = []
    for rows in _chunks(*logits.shape):
        entropy, gradient[rows] = _rows_gradient(logits[rows].clone(), rows, goal, lambda of, rows=rows: of[rows])  # type: ignore[misc]
        entropies.append(entropy)
    return torch.cat(entropies), gradient


def _rows_gradient(z: Tensor, rows: slice, goal: Goal, logits: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each of some rows and the goal's gradient by their logits `z`, which may be overwritten."""
    exact = torch.float64 if z.dtype == torch.float64 else torch.float32
    z = z.to(exact)
    target, weight = goal.targets[rows, None], goal.weights[rows, None]
    z.sub_(z.amax(dim=1, keepdim=True))
    own = z.gather(1, target)
    total = z.exp_().sum(dim=1, keepdim=True)
    entropy = (total.log() - own)[:, 0]
    if goal.reference is None:
        z.mul_(weight / total)
    else:
        kl_weight = goal.kl_weights[rows, None]
        z.mul_((weight + kl_weight) / total)
        z.sub_(logits(goal.reference).to(exact).softmax(dim=1).mul_(kl_weight))
    return entropy, z.scatter_add_(1, target, -weight)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    size = max(1, _CHUNK_ELEMENTS // width)
    return (slice(start, start + size) for start in range(0, rows, size))
