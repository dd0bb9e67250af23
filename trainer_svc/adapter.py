"""Adapters in the engine: trained ones with their optimiser state, frozen ones, and stacks of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sealkit.backends.lora import LoraWeights
from sealkit.types import LoraConfig, Optimisation
from trainer_svc.layout import Groups, Layout, Views, cut
from trainer_svc.plan import generator_of


def initial_weights(config: LoraConfig, linears: Mapping[str, nn.Linear], seed: int) -> LoraWeights:
    """Initial weights as in PEFT: A uniform in ±1/sqrt(in) (Kaiming with a = sqrt(5)), B zero. Each A depends only on
    the seed and its own path, not on which other layers are targets."""
    tensors = {}
    for path, linear in linears.items():
        bound = 1 / math.sqrt(linear.in_features)
        a = torch.empty(config.rank, linear.in_features)
        a.uniform_(-bound, bound, generator=generator_of(seed, "init", path))
        tensors[path] = (a, torch.zeros(linear.out_features, config.rank))
    return LoraWeights(config, tensors)


class AdapterBatch:
    """Stacked adapters of one layout, for matrix products: `values` [adapters, size] in the dtype of the products, and
    the scaling of each."""

    def __init__(self, layout: Layout, values: Tensor, scalings: Sequence[float]) -> None:
        self.layout, self.values = layout, values
        alike = len(set(scalings)) == 1
        self.scaling: float | Tensor = scalings[0] if alike else values.new_tensor(scalings).view(-1, 1, 1)
        self._views: dict[tuple[int, bool], tuple[Views, ...]] = {}

    def views(self, group: int, *, apart: bool = False) -> tuple[Views, ...]:
        """The matrices at a group of linears; with `apart` separately for each linear."""
        views = self._views.get((group, apart))
        if views is None:
            views = self._views[group, apart] = self.layout.views(group, self.values, apart=apart)
        return views


class Gradients:
    """Gradients of a step for the adapters of a stack, matrix by matrix, of the values from `first` on. One adapter's
    gradients are written in place; those of several are assembled at the end."""

    def __init__(self, layout: Layout, like: Tensor, adapters: int, first: int = 0) -> None:
        """`like`: the trained values of one adapter, [size - first]."""
        self._like, self._adapters, self._first = like, adapters, first
        self._spans = [(group, span) for group, span in layout.spans if first <= span[0] < span[1]]
        self._flat = torch.empty_like(like)[None] if adapters == 1 else None
        self._pieces: dict[int, Tensor] = {}
        self._groups: set[int] = set()

    @property
    def of_a(self) -> bool:
        """Whether A is trained too."""
        return not self._first

    def begin(self) -> None:
        """Starts a step; discards one that was not ended."""
        self._pieces, self._groups = {}, set()

    def add(self, group: int, start: int, left: Tensor, right: Tensor) -> None:
        """Adds left @ right, [adapters, rows, columns], to the matrix at offset `start`."""
        self._groups.add(group)
        piece = self._pieces.get(start)
        if piece is None and self._flat is None:
            self._pieces[start] = torch.bmm(left, right).to(self._like.dtype)
            return
        fresh = piece is None
        if piece is None:
            assert self._flat is not None
            piece = self._pieces[start] = cut(self._flat, start - self._first, left.shape[1], right.shape[2])
        if piece.dtype == left.dtype:
            piece.baddbmm_(left, right, beta=0 if fresh else 1)
        elif fresh:
            piece.copy_(torch.bmm(left, right))
        else:
            piece.add_(torch.bmm(left, right))

    def end(self) -> Sequence[Tensor]:
        """Each adapter's gradient [size - first]; zero for layers that no token went through."""
        missing = [span for group, span in self._spans if group not in self._groups]
        pieces, self._pieces = self._pieces, {}
        if self._flat is not None:
            for begin, end in missing:
                self._flat[0, begin - self._first : end - self._first].zero_()
            return [self._flat[0]]
        for begin, end in missing:
            pieces[begin] = self._like.new_zeros(self._adapters, end - begin)
        return torch.cat([pieces[start].flatten(1) for start in sorted(pieces)], dim=1).unbind(0)


@dataclass(eq=False)
class FrozenAdapter:
    """A frozen policy adapter, applied below trial adapters."""

    stack: AdapterBatch

    @classmethod
    def of(cls, weights: LoraWeights, groups: Groups, device: torch.device, dtype: torch.dtype) -> FrozenAdapter:
        layout = Layout.of(weights.tensors, groups)
        values = layout.flatten(weights.tensors).to(device, dtype)[None]
        return cls(AdapterBatch(layout, values, [weights.scaling]))


@dataclass(eq=False)
class TrainableAdapter:
    """An adapter in training. Master weights, gradient and Adam's moments are flat and in float32 (float64 on a float64
    base); `compute` is a copy in the dtype of the products, or the master weights if that is the same. Only the values
    from `first` on are trained: all, or with a fixed A those of B."""

    config: LoraConfig
    optimisation: Optimisation
    layout: Layout
    master: Tensor
    compute: Tensor
    first: int
    moments: tuple[Tensor, Tensor]
    steps: Tensor
    gradient: Tensor | None = None
    accumulated: Tensor | None = None
    _alone: Training | None = None

    @classmethod
    def of(
        cls,
        weights: LoraWeights,
        optimisation: Optimisation,
        groups: Groups,
        device: torch.device,
        dtype: torch.dtype,
        *,
        fixed_a: bool = False,
    ) -> TrainableAdapter:
        """`dtype`: of the products; `fixed_a`: whether only B is trained. Needs 3 values of the master dtype for each
        trained weight and 1 for a fixed one, another for each trained one in a step, and one of `dtype` if it differs.
        May raise torch.OutOfMemoryError."""
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        layout = Layout.of(weights.tensors, groups)
        master = layout.flatten(weights.tensors).to(device, exact)
        compute = master if dtype == exact else master.to(dtype)
        first = layout.b_start if fixed_a else 0
        moments = (torch.zeros_like(master[first:]), torch.zeros_like(master[first:]))
        steps = torch.zeros((), device=device)
        return cls(weights.config, optimisation, layout, master, compute, first, moments, steps)

    @property
    def scaling(self) -> float:
        return self.config.alpha / self.config.rank

    @property
    def trained(self) -> Tensor:
        """The trained part of the master weights, a view."""
        return self.master[self.first :]

    def weights(self) -> LoraWeights:
        """A copy of the master weights on the CPU."""
        return LoraWeights(self.config, self.layout.matrices(self.master.to("cpu", copy=True)))

    def gradients(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Gradient of A (zero if it is fixed) and B by path, after a step of the model."""
        assert self.gradient is not None
        return self.layout.matrices(torch.cat([self.gradient.new_zeros(self.first), self.gradient]))

    @property
    def finite(self) -> bool:
        return bool(self.master.isfinite().all())

    def alone(self) -> Training:
        """This adapter alone in a step; nothing is copied, and the result is cached."""
        if self._alone is None:
            stack = AdapterBatch(self.layout, self.compute[None], [self.scaling])
            self._alone = Training((self,), stack, Gradients(self.layout, self.trained, 1, self.first))
        return self._alone


class Training(NamedTuple):
    """Adapters that are trained together in a step."""

    adapters: tuple[TrainableAdapter, ...]
    stack: AdapterBatch
    gradients: Gradients

    @classmethod
    def of(cls, adapters: Sequence[TrainableAdapter]) -> Training:
        """All adapters must have one layout, and train the same part of it."""
        first = adapters[0]
        if len(adapters) == 1:
            training = first.alone()
            training.gradients.begin()
            return training
        values = torch.stack([adapter.compute for adapter in adapters])
        stack = AdapterBatch(first.layout, values, [adapter.scaling for adapter in adapters])
        return cls(tuple(adapters), stack, Gradients(first.layout, first.trained, len(adapters), first.first))

    def end(self) -> None:
        """Writes each adapter's gradient."""
        for adapter, gradient in zip(self.adapters, self.gradients.end(), strict=True):
            adapter.gradient = gradient
