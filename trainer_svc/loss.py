"""Cross-entropy and KL to soft targets, with their gradient in one pass over the logits. Never stores all logits.

A row's loss is  ce · CE(row, target) + kl · KL(soft target || row).  Soft targets have two forms: the teacher's last
hidden states, which give its exact distribution and need few numbers a row; or its k most likely tokens and one bucket
for the rest, which needs no second product with the output head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_ELEMENTS = 1 << 23
"""Most logits in memory at a time: a few rows of a large vocabulary, whatever the size of the step."""


class TopK(NamedTuple):
    """Soft targets of rows: the k most likely tokens, `tokens` and `probabilities` [rows, k], and `rest` [rows], the
    probability of all other tokens. The KL is over these k + 1 outcomes."""

    tokens: Tensor
    probabilities: Tensor
    rest: Tensor


class States(NamedTuple):
    """Soft targets of rows: the inputs of the teacher's output head, [rows, features]. If the head is more than a
    matrix product, the logits."""

    states: Tensor


Soft = TopK | States


@dataclass(frozen=True)
class Goal:
    """The objective of some rows. `targets`, `ce` and `kl` (the weights of both terms): [rows]; `soft`: the soft
    targets of all rows, None if no row has a KL term."""

    targets: Tensor
    ce: Tensor
    kl: Tensor
    soft: Soft | None = None


@torch.no_grad()
def head_gradient(hidden: Tensor, weight: Tensor, bias: Tensor | None, goal: Goal) -> tuple[Tensor, Tensor]:
    """The loss of each row [rows], in nats (float32, or float64 for float64 weights), and its gradient with respect to
    `hidden` [rows, features], where logits are weight @ hidden + bias."""
    gradient = torch.empty_like(hidden)
    losses = []
    for rows in _chunks(len(hidden), weight.shape[0]):

        def logits(of: Tensor, rows: slice = rows) -> Tensor:
            return functional.linear(of[rows].to(weight.dtype), weight, bias)

        loss, d_logits = _rows_gradient(logits(hidden), rows, goal, logits)
        losses.append(loss)
        gradient[rows] = d_logits.to(weight.dtype) @ weight
    return torch.cat(losses), gradient


@torch.no_grad()
def logits_gradient(logits: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """Like `head_gradient`, with respect to the logits [rows, vocabulary]."""
    gradient = torch.empty_like(logits)
    losses = []
    for rows in _chunks(*logits.shape):
        loss, gradient[rows] = _rows_gradient(logits[rows].clone(), rows, goal, lambda of, rows=rows: of[rows])  # type: ignore[misc]
        losses.append(loss)
    return torch.cat(losses), gradient


@torch.no_grad()
def head_top_k(hidden: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> TopK:
    """The k most likely tokens of rows [rows, features], and the probability of the rest."""
    top = [
        logits_top_k(functional.linear(hidden[rows].to(weight.dtype), weight, bias), k)
        for rows in _chunks(len(hidden), weight.shape[0])
    ]
    return TopK(*(torch.cat(values) for values in zip(*top, strict=True)))


@torch.no_grad()
def logits_top_k(logits: Tensor, k: int) -> TopK:
    """Like `head_top_k`, for logits [rows, vocabulary]."""
    z = logits.to(_exact(logits.dtype))
    z = z - z.amax(dim=1, keepdim=True)
    top = z.topk(min(k, z.shape[1]), dim=1)
    own = top.values.exp()
    # Summed without the k tokens, not subtracted from 1, to keep the precision of a small rest.
    rest = z.exp_().scatter_(1, top.indices, 0).sum(dim=1)
    total = own.sum(dim=1) + rest
    return TopK(top.indices.to(torch.int32), own / total[:, None], rest / total)


def _rows_gradient(z: Tensor, rows: slice, goal: Goal, logits: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of each of some rows and its gradient with respect to their logits `z`, which may be overwritten."""
    z = z.to(_exact(z.dtype))
    target, ce = goal.targets[rows, None], goal.ce[rows, None]
    z.sub_(z.amax(dim=1, keepdim=True))
    own = z.gather(1, target)
    if goal.soft is None:
        total = z.exp_().sum(dim=1, keepdim=True)
        return (ce * (total.log() - own))[:, 0], z.mul_(ce / total).scatter_add_(1, target, -ce)
    kl = goal.kl[rows, None]
    if isinstance(goal.soft, States):
        said = logits(goal.soft.states).to(z.dtype).log_softmax(dim=1)
        p = said.exp()
        apart = (p * (said - z)).sum(dim=1, keepdim=True)
        total = z.exp_().sum(dim=1, keepdim=True)
        z.mul_((ce + kl) / total).sub_(p.mul_(kl))
        divergence = apart + total.log()
    else:
        tokens, p = goal.soft.tokens[rows].long(), goal.soft.probabilities[rows].to(z.dtype)
        p_rest = goal.soft.rest[rows, None].to(z.dtype)
        likeliest = z.gather(1, tokens)
        e = likeliest.exp()
        rest = z.exp_().scatter_(1, tokens, 0).sum(dim=1, keepdim=True).clamp_min_(torch.finfo(z.dtype).tiny)
        total = rest + e.sum(dim=1, keepdim=True)
        # The target of a token of the rest is its share of the rest's probability: t = p_rest · q / q_rest.
        z.mul_((ce + kl) / total - kl * p_rest / rest).scatter_(1, tokens, (ce + kl) * e / total - kl * p)
        apart = (torch.xlogy(p, p) - p * likeliest).sum(dim=1, keepdim=True)
        divergence = apart + torch.xlogy(p_rest, p_rest) - torch.xlogy(p_rest, rest) + total.log()
    loss = ce * (total.log() - own) + kl * divergence
    return loss[:, 0], z.scatter_add_(1, target, -ce)


def joined(parts: Sequence[Soft]) -> Soft:
    """The targets of all rows, concatenated; all of one form."""
    if isinstance(parts[0], States):
        return States(torch.cat([part[0] for part in parts]))
    return TopK(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunks(rows: int, width: int) -> Iterator[slice]:
    size = max(1, _CHUNK_ELEMENTS // width)
    return (slice(start, start + size) for start in range(0, rows, size))
