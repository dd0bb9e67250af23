"""One linear layer for the rows of many jobs: one product with the frozen weight, each job's LoRA on its own rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainer_svc.adapter import LoraPair


@dataclass(frozen=True)
class Slice:
    """Rows [start, end) of a step that belong to one job, and what it adds to one linear on them: the policy's frozen
    pair, the trial's own pair, or both. `dropout` draws the trial's from `generator`, the job's own."""

    start: int
    end: int
    trial: LoraPair | None
    policy: LoraPair | None
    dropout: float = 0.0
    generator: torch.Generator | None = None


class PackedLinear(nn.Linear):
    """Takes an `nn.Linear`'s place and weight: without `slices` it is that linear; with them each job's LoRA is added
    to its rows.

    Set `slices` before a forward pass and leave them alone until the backward pass is done.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # the weight is the given one, so none is drawn
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.slices: tuple[Slice, ...] = ()
        # Makes autograd call the backward pass of the first adapted layer, whose input requires no gradient.
        self.anchor = torch.zeros((), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]; the leading dimensions flattened are the rows of the step."""
        if not self.slices:
            return functional.linear(x, self.weight, self.bias)
        packed: Tensor = _PackedLora.apply(x, self.anchor, self.weight, self.bias, self.slices)  # type: ignore[no-untyped-call]
        return packed


class _PackedLora(torch.autograd.Function):
    """y = W x + bias + Σ scaling · B A dropout(x) on the rows of each slice; W and bias get no gradient, A and B get
    theirs written into their pair, not through autograd."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _anchor: Tensor, weight: Tensor, bias: Tensor | None, slices: tuple[Slice, ...]
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = functional.linear(rows, weight, bias)
        saved: list[tuple[Tensor | None, Tensor | None]] = []
        for part in slices:
            own, out = rows[part.start : part.end], y[part.start : part.end]
            if part.policy is not None:
                _add_low_rank(out, own @ part.policy.a.t(), part.policy)
            if part.trial is not None:
                keep = _dropout_mask(own, part)
                down = (own if keep is None else own * keep) @ part.trial.a.t()
                _add_low_rank(out, down, part.trial)
                saved.append((down, keep))
            else:
                saved.append((None, None))
        ctx.rows, ctx.weight, ctx.slices, ctx.saved = rows, weight, slices, saved
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        shape = dy.shape
        dy = dy.reshape(-1, shape[-1])
        rows: Tensor = ctx.rows
        dx = dy @ ctx.weight if ctx.needs_input_grad[0] else None
        for part, (down, keep) in zip(ctx.slices, ctx.saved, strict=True):
            own, dy_own = rows[part.start : part.end], dy[part.start : part.end]
            dx_own = None if dx is None else dx[part.start : part.end]
            if part.policy is not None and dx_own is not None:
                _add_scaled(dx_own, dy_own @ part.policy.b, part.policy.a, part.policy.scaling)
            if part.trial is not None:
                trial = part.trial
                d_down = (dy_own @ trial.b).mul_(trial.scaling)
                seen = own if keep is None else own * keep
                trial.add_gradient(d_down.t() @ seen, dy_own.t() @ (down * trial.scaling))
                if dx_own is not None and keep is None:
                    dx_own.addmm_(d_down, trial.a)
                elif dx_own is not None:
                    dx_own.add_((d_down @ trial.a).mul_(keep))
        ctx.rows = ctx.saved = None  # freed here, not when the graph is
        return None if dx is None else dx.view(*shape[:-1], -1), None, None, None, None


def _add_low_rank(out: Tensor, down: Tensor, pair: LoraPair) -> None:
    _add_scaled(out, down, pair.b.t(), pair.scaling)


def _add_scaled(out: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    out.addmm_(left, right, alpha=scaling)


def _dropout_mask(rows: Tensor, part: Slice) -> Tensor | None:
    if not part.dropout:
        return None
    keep = torch.rand(rows.shape, generator=part.generator, device=rows.device) >= part.dropout
    return keep.to(rows.dtype).div_(1 - part.dropout)
