"""Linear layers for the rows of many jobs: one product with each frozen weight, each job's LoRA on its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainer_svc.adapter import AdapterBatch, Gradients
from trainer_svc.layout import Views
from trainer_svc.rows import Rows


@dataclass(eq=False)
class Applied:
    """Adapters on the rows of their jobs, one block of rows each; `gradients` if they are trained. `dropout` (only for
    a single adapter) is drawn from `generator`, the job's own; a mask is drawn once in a step, so that a recomputed
    layer gets the same."""

    rows: Rows
    stack: AdapterBatch
    gradients: Gradients | None = None
    dropout: float = 0.0
    generator: torch.Generator | None = None
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def input(self, x: Tensor, views: Views) -> Tensor:
        """The input of the adapters' A, from x [rows of the step, in]: [blocks, width, in]."""
        seen = self.rows.of(x)
        return seen * self.mask(seen, views) if self.dropout else seen

    def mask(self, seen: Tensor, views: Views) -> Tensor:
        """0 for a dropped input, else 1 / (1 - dropout)."""
        key = (views.group, views.starts[0])
        if key not in self.masks:
            drawn = torch.rand(seen.shape, generator=self.generator, device=seen.device)
            self.masks[key] = (drawn >= self.dropout).to(seen.dtype).div_(1 - self.dropout)
        return self.masks[key]


@dataclass(frozen=True, eq=False)
class Step:
    """The current step, for the linear layers. `dtype`: of the products; None: the input's. `see` is called with the
    index of each group of linears and its input, [rows, in]."""

    applied: Sequence[Applied]
    dtype: torch.dtype | None
    see: Callable[[int, Tensor], None] | None = None

    def at(self, group: int) -> Iterator[tuple[Applied, Views]]:
        """The adapters to apply at a group of linears. As in PEFT, each linear has its own dropout."""
        for applied in self.applied:
            for views in applied.stack.views(group, apart=applied.dropout > 0):
                yield applied, views


IDLE = Step((), None)


class PackedLinear(nn.Linear):
    """Replaces an `nn.Linear` and uses its weight; each job's LoRA is added to its own rows, according to the group's
    `step`."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # no new weight is initialised
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.group = Group(0, (self,))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]; the leading dimensions flattened are the rows of the step."""
        return self.group.output(self, x)

    def frozen_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] in `dtype`, unpacked where it is stored in 4 bits."""
        state = getattr(self.weight, "quant_state", None)
        if state is None:
            return self.weight.to(dtype)
        quantised = import_module("bitsandbytes.functional")  # an optional extra
        dense: Tensor = quantised.dequantize_4bit(self.weight.data, state)
        return dense.to(dtype)


class Group:
    """Linears with the same input, such as q, k and v: one node of the graph, one product with all of their A.

    Set `step` before a forward pass and do not change it until the backward pass is done."""

    def __init__(self, index: int, linears: Sequence[PackedLinear]) -> None:
        self.index, self.linears = index, tuple(linears)
        self.step = IDLE
        # Makes autograd call the backward pass of the first adapted layer, whose input requires no gradient.
        self._anchor = torch.zeros((), requires_grad=True)
        self._input: Tensor | None = None
        self._outputs: dict[PackedLinear, Tensor] = {}

    def begin(self, step: Step) -> None:
        """Sets the step."""
        self.step, self._input, self._outputs = step, None, {}

    def output(self, linear: PackedLinear, x: Tensor) -> Tensor:
        """One linear's output; the others' outputs are computed with it and returned when they are called with the same
        input."""
        if self._input is not x or linear not in self._outputs:
            self._outputs = dict(zip(self.linears, self._run(x), strict=True))
            self._input = x
        y = self._outputs.pop(linear)
        if not self._outputs:
            self._input = None
        return y

    def _run(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.step.see is not None:
            self.step.see(self.index, x.reshape(-1, x.shape[-1]))
        applied = tuple(self.step.at(self.index))
        dtype = self.step.dtype or x.dtype
        trains = any(each.gradients for each, _ in applied)
        packed: tuple[Tensor, ...] = _PackedLora.apply(x, self._anchor if trains else None, self, applied, dtype)  # type: ignore[no-untyped-call]
        # Viewed here: a view that is made within a function may not be changed in place, as some models do.
        return tuple(y.view(*x.shape[:-1], -1) for y in packed)


class _PackedLora(torch.autograd.Function):
    """For each linear of a group y = W x + bias + Σ scaling · B A dropout(x), [rows, out], on the rows of each adapter.
    W and bias get no gradient; those of A and B are written to their stack, not returned to autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _anchor: Tensor | None,
        group: Group,
        applied: Sequence[tuple[Applied, Views]],
        dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        outputs = [_linear(rows, linear, dtype) for linear in group.linears]
        downs = []
        for each, views in applied:
            down = torch.bmm(each.input(rows, views), views.a.mT).mul_(each.stack.scaling)
            for place, columns, b in views.members:
                each.rows.of(outputs[place]).baddbmm_(down[..., columns], b.mT)
            downs.append(down if each.gradients else down.new_empty(0))
        # Only the gradient of A needs the input.
        reads = any(each.gradients and each.gradients.of_a for each, _ in applied)
        ctx.save_for_backward(x if reads else None, *downs)
        ctx.group, ctx.applied, ctx.dtype = group, applied, dtype
        ctx.input = x.shape, x.dtype
        return tuple(y.to(x.dtype) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, *downs = ctx.saved_tensors
        group, dtype = ctx.group, ctx.dtype
        shape, input_dtype = ctx.input
        rows = None if x is None else x.reshape(-1, shape[-1]).to(dtype)
        gradients = [dy.to(dtype) for dy in dys]
        dx = None
        if ctx.needs_input_grad[0]:
            for linear, dy in zip(group.linears, gradients, strict=True):
                weight = linear.frozen_weight(dtype)
                dx = dy @ weight if dx is None else dx.addmm_(dy, weight)
        for (each, views), down in zip(ctx.applied, downs, strict=True):
            _adapter_backward(each, views, rows, down, gradients, dx)
        return None if dx is None else dx.to(input_dtype).view(shape), None, None, None, None


def _adapter_backward(
    each: Applied, views: Views, rows: Tensor | None, down: Tensor, dys: Sequence[Tensor], dx: Tensor | None
) -> None:
    """Writes the gradients of B and, from the input `rows`, of A, and adds the adapters' share to `dx`."""
    d_down = dys[0].new_empty(each.rows.blocks, each.rows.width, views.a.shape[1])
    for (place, columns, b), start in zip(views.members, views.starts[1:], strict=True):
        dy = each.rows.of(dys[place])
        torch.bmm(dy, b, out=d_down[..., columns])
        if each.gradients:
            each.gradients.add(views.group, start, dy.mT, down[..., columns])
    d_down.mul_(each.stack.scaling)
    if each.gradients and each.gradients.of_a:
        assert rows is not None
        each.gradients.add(views.group, views.starts[0], d_down.mT, each.input(rows, views))
    if dx is None:
        return
    own = each.rows.of(dx)
    if each.dropout:
        own.addcmul_(torch.bmm(d_down, views.a), each.mask(own, views))
    else:
        own.baddbmm_(d_down, views.a)


def _linear(rows: Tensor, linear: PackedLinear, dtype: torch.dtype) -> Tensor:
    bias = linear.bias
    return functional.linear(rows, linear.frozen_weight(dtype), None if bias is None else bias.to(dtype))
