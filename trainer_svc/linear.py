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
    """The next `rows` rows of a step, which belong to one job, and what it adds to one linear on them: the policy's
    frozen pair, the trial's own pair, both or none. `dropout` draws the trial's from `generator`, the job's own."""

    rows: int
    trial: LoraPair | None
    policy: LoraPair | None
    dropout: float = 0.0
    generator: torch.Generator | None = None


class PackedLinear(nn.Linear):
    """Takes an `nn.Linear`'s place and weight: each job's LoRA is added to its own rows, as `slices` say.

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
        if not any(part.trial or part.policy for part in self.slices):
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
        sizes = [part.rows for part in slices]
        saved: list[tuple[Tensor | None, Tensor | None]] = []
        for part, own, out in zip(slices, torch.split(rows, sizes), torch.split(y, sizes), strict=True):
            down = keep = None
            if part.policy is not None:
                out.addmm_(own @ part.policy.a_t, part.policy.b_t, alpha=part.policy.scaling)
            if part.trial is not None:
                keep = _dropout_mask(own, part)
                down = (own if keep is None else own * keep) @ part.trial.a_t
                out.addmm_(down, part.trial.b_t, alpha=part.trial.scaling)
            saved.append((down, keep))
        ctx.rows, ctx.weight, ctx.slices, ctx.saved, ctx.sizes = rows, weight, slices, saved, sizes
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        shape, sizes = dy.shape, ctx.sizes
        dy = dy.reshape(-1, shape[-1])
        dx = dy @ ctx.weight if ctx.needs_input_grad[0] else None
        dx_of = torch.split(dx, sizes) if dx is not None else [None] * len(sizes)
        each = zip(ctx.slices, ctx.saved, torch.split(ctx.rows, sizes), torch.split(dy, sizes), dx_of, strict=True)
        for part, (down, keep), own, dy_own, dx_own in each:
            policy, trial = part.policy, part.trial
            if policy is not None and dx_own is not None:
                dx_own.addmm_(dy_own @ policy.b, policy.a, alpha=policy.scaling)
            if trial is not None:
                d_down = dy_own @ trial.b
                seen = own if keep is None else own * keep
                trial.add_gradient(d_down.t(), seen, dy_own.t(), down)
                if dx_own is not None and keep is None:
                    dx_own.addmm_(d_down, trial.a, alpha=trial.scaling)
                elif dx_own is not None:
                    dx_own.addcmul_(d_down @ trial.a, keep, value=trial.scaling)
        ctx.rows = ctx.saved = None  # freed here, not when the graph is
        return None if dx is None else dx.view(*shape[:-1], -1), None, None, None, None


def _dropout_mask(rows: Tensor, part: Slice) -> Tensor | None:
    if not part.dropout:
        return None
    keep = torch.rand(rows.shape, generator=part.generator, device=rows.device) >= part.dropout
    return keep.to(rows.dtype).div_(1 - part.dropout)
