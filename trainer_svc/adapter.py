"""Adapters in the engine: one that trains, with its optimiser; one that is frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from sealkit.backends.lora import LoraWeights
from sealkit.types import LoraConfig, Optimisation
from trainer_svc.plan import generator_of


def initial_weights(config: LoraConfig, linears: Mapping[str, nn.Linear], seed: int) -> LoraWeights:
    """Fresh weights as PEFT draws them: A uniform in ±1/sqrt(in) (Kaiming with a = sqrt(5)), B zero. Each A depends on
    the seed and its own path alone, not on which other layers are targets."""
    tensors = {}
    for path, linear in linears.items():
        bound = 1 / math.sqrt(linear.in_features)
        a = torch.empty(config.rank, linear.in_features)
        a.uniform_(-bound, bound, generator=generator_of(seed, "init", path))
        tensors[path] = (a, torch.zeros(linear.out_features, config.rank))
    return LoraWeights(config, tensors)


class LoraPair:
    """One target linear of an adapter: `a` [rank, in], `b` [out, rank] in the compute dtype, and views of the gradient.

    The gradient of a micro-batch is written at the first backward pass through the layer and added to after that, so
    nothing is cleared in between: `written` says which."""

    def __init__(
        self, a: Tensor, b: Tensor, scaling: float, a_grad: Tensor | None = None, b_grad: Tensor | None = None
    ) -> None:
        self.a, self.b = a, b
        self.a_t, self.b_t = a.t(), b.t()
        self.scaling = scaling
        self.a_grad, self.b_grad = a_grad, b_grad
        self.written = False

    def add_gradient(self, d_down_t: Tensor, seen: Tensor, dy_t: Tensor, down: Tensor) -> None:
        """Takes d loss / d a = scaling · d_down_t @ seen and d loss / d b = scaling · dy_t @ down of one pass. Only for
        a pair that trains."""
        assert self.a_grad is not None
        assert self.b_grad is not None
        kept = 1 if self.written else 0
        if self.a_grad.dtype == seen.dtype:
            self.a_grad.addmm_(d_down_t, seen, beta=kept, alpha=self.scaling)
            self.b_grad.addmm_(dy_t, down, beta=kept, alpha=self.scaling)
        elif kept:
            self.a_grad.add_(d_down_t @ seen, alpha=self.scaling)
            self.b_grad.add_(dy_t @ down, alpha=self.scaling)
        else:
            torch.mul(d_down_t @ seen, self.scaling, out=self.a_grad)
            torch.mul(dy_t @ down, self.scaling, out=self.b_grad)
        self.written = True


@dataclass(eq=False)
class FrozenAdapter:
    """A policy adapter as it lies under trial adapters: by path, in the compute dtype."""

    pairs: dict[str, LoraPair]

    @classmethod
    def of(cls, weights: LoraWeights, device: torch.device, dtype: torch.dtype) -> FrozenAdapter:
        pairs = {
            path: LoraPair(a.to(device, dtype), b.to(device, dtype), weights.scaling)
            for path, (a, b) in weights.tensors.items()
        }
        return cls(pairs)


@dataclass(eq=False)
class TrainableAdapter:
    """An adapter that trains. Master weights, gradient and Adam's moments are flat and in float32 (float64 on a float64
    base); what the forward pass sees is a copy in the compute dtype, or the masters where that is the same."""

    config: LoraConfig
    master: Tensor
    compute: Tensor
    gradient: Tensor
    pairs: dict[str, LoraPair]
    shapes: dict[str, tuple[torch.Size, torch.Size]]
    moments: tuple[Tensor, Tensor]
    steps: Tensor
    weight_decay: float
    max_grad_norm: float
    accumulated: Tensor | None = field(default=None)

    @classmethod
    def of(
        cls, weights: LoraWeights, optimisation: Optimisation, device: torch.device, dtype: torch.dtype
    ) -> TrainableAdapter:
        """Takes 4 values of the master dtype and one of `dtype` for each weight; may raise torch.OutOfMemoryError."""
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        shapes = {path: (a.shape, b.shape) for path, (a, b) in weights.tensors.items()}
        flat = torch.cat([t.reshape(-1) for pair in weights.tensors.values() for t in pair]).to(device, exact)
        master = flat
        compute = master if dtype == exact else flat.to(dtype)
        gradient, mean, square = (torch.zeros_like(flat) for _ in range(3))
        values, grads = _views(compute, shapes), _views(gradient, shapes)
        pairs = {path: LoraPair(*values[path], weights.scaling, *grads[path]) for path in shapes}
        steps = torch.zeros((), device=device)
        decay, clip = optimisation.weight_decay, optimisation.max_grad_norm
        return cls(weights.config, master, compute, gradient, pairs, shapes, (mean, square), steps, decay, clip)

    def begin(self) -> None:
        """Starts a micro-batch; one that was not committed is forgotten."""
        for pair in self.pairs.values():
            pair.written = False

    def commit(self, *, closes: bool, learning_rate: float) -> bool:
        """Takes the gradient of the micro-batch that just ran; where that `closes` an optimiser step, makes it.

        Returns False, and leaves the weights alone, if the gradient's norm is not finite.
        """
        for pair in self.pairs.values():
            if not pair.written and pair.a_grad is not None and pair.b_grad is not None:
                pair.a_grad.zero_()  # a layer that no token went through
                pair.b_grad.zero_()
        if self.accumulated is not None:
            self.gradient.add_(self.accumulated)
        norm = torch.linalg.vector_norm(self.gradient)
        if not math.isfinite(norm):
            return False
        if closes:
            self.accumulated = None
            self._step(norm, learning_rate)
        else:
            self.accumulated = self.gradient.clone()
        return True

    def weights(self) -> LoraWeights:
        """A copy of the master weights on the CPU."""
        return LoraWeights(self.config, _views(self.master.to("cpu", copy=True), self.shapes))

    @property
    def finite(self) -> bool:
        return bool(self.master.isfinite().all())

    def _step(self, norm: Tensor, learning_rate: float) -> None:
        if self.max_grad_norm:
            self.gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))  # as torch's clip_grad_norm_
        # torch.optim.AdamW's own function, without what the class does around it: with small models that is the half.
        adamw(
            [self.master],
            [self.gradient],
            [self.moments[0]],
            [self.moments[1]],
            [],
            [self.steps],
            fused=self.master.device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        if self.compute.dtype != self.master.dtype:
            self.compute.copy_(self.master)


def _views(flat: Tensor, shapes: Mapping[str, tuple[torch.Size, torch.Size]]) -> dict[str, tuple[Tensor, Tensor]]:
    ends = [0]
    for a, b in shapes.values():
        ends += [ends[-1] + a.numel(), ends[-1] + a.numel() + b.numel()]
    parts = iter([flat[start:end] for start, end in pairwise(ends)])
    return {path: (next(parts).view(a), next(parts).view(b)) for path, (a, b) in shapes.items()}
