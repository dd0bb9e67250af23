"""AdamW steps of many adapters at once, each with its own learning rate, clipping and step count."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trainer_svc.adapter import TrainableAdapter


class Update(NamedTuple):
    """What to do with an adapter's gradient after a micro-batch: an optimiser step if the micro-batch `closes` one."""

    adapter: TrainableAdapter
    closes: bool
    learning_rate: float


def commit(updates: Sequence[Update]) -> list[bool]:
    """Applies the gradients of the last micro-batches. False for an adapter whose gradient norm is not finite; its
    weights are not changed."""
    if not updates:
        return []
    gradients = [_with_accumulated(update.adapter) for update in updates]
    norms = torch.stack([_norm(gradient) for gradient in gradients]).tolist()
    closing: dict[tuple[float, float], list[tuple[TrainableAdapter, Tensor]]] = defaultdict(list)
    for (adapter, closes, rate), gradient, norm in zip(updates, gradients, norms, strict=True):
        if not math.isfinite(norm):
            continue
        if not closes:
            adapter.accumulated = gradient.clone()
            continue
        adapter.accumulated = None
        limit = adapter.optimisation.max_grad_norm
        if limit and norm + 1e-6 > limit:
            gradient.mul_(limit / (norm + 1e-6))  # like torch's clip_grad_norm_
        closing[rate, adapter.optimisation.weight_decay].append((adapter, gradient))
    for (rate, decay), stepping in closing.items():
        _step([adapter for adapter, _ in stepping], [gradient for _, gradient in stepping], rate, decay)
    return [math.isfinite(norm) for norm in norms]


def _with_accumulated(adapter: TrainableAdapter) -> Tensor:
    assert adapter.gradient is not None
    if adapter.accumulated is not None:
        adapter.gradient.add_(adapter.accumulated)
    return adapter.gradient


def _norm(gradient: Tensor) -> Tensor:
    if gradient.device.type == "cpu":  # twice as fast as vector_norm
        return torch.dot(gradient, gradient).sqrt()
    norm: Tensor = torch.linalg.vector_norm(gradient)
    return norm


def _step(adapters: Sequence[TrainableAdapter], gradients: list[Tensor], rate: float, decay: float) -> None:
    # torch.optim.AdamW's own function, without the overhead of the class, which is half of the time with small models.
    adamw(
        [adapter.trained for adapter in adapters],
        gradients,
        [adapter.moments[0] for adapter in adapters],
        [adapter.moments[1] for adapter in adapters],
        [],
        [adapter.steps for adapter in adapters],
        fused=adapters[0].master.device.type in ("cpu", "cuda"),
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=decay,
        eps=1e-8,
        maximize=False,
    )
    copies = [adapter for adapter in adapters if adapter.compute is not adapter.master]
    if copies:
        torch._foreach_copy_([adapter.compute for adapter in copies], [adapter.master for adapter in copies])
