"""Adapters side by side on the model's linears, each row with its own; the base weights are never touched.

The A and B of every adapter in use are stacked along the rank, one stack a linear, each adapter in the same span of all
stacks. A forward then takes three operations a linear, however many adapters: h = x Aᵀ over the stack, h set to zero
outside the spans of the row's own adapters, y += h B. A row with policy and trial adapter has both spans, which is
exactly the concatenation of their ranks. (S-LoRA, arXiv 2311.03285, gathers instead; at ranks of tens and on CPU the
waste of the dense product is less than the cost of many small ones.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sealkit.backends.lora import LoraWeights
from sealkit.errors import AdapterCorrupt

Span = tuple[int, int]


@dataclass(frozen=True)
class Adapter:
    """Weights in memory under their name, which alone tells adapters apart: for each linear's path A [rank, in] and
    B [rank, out], the scaling in B."""

    digest: str
    rank: int
    tensors: Mapping[str, tuple[Tensor, Tensor]] = field(compare=False, repr=False)

    @classmethod
    def of(cls, digest: str, weights: LoraWeights, dtype: torch.dtype) -> Adapter:
        """In the element type of the model. Raises AdapterCorrupt where a weight is not finite in it: rows share a
        matrix product over all adapters, and 0 · NaN would carry one adapter's fault to the others' rows."""
        tensors = {
            path: (a.to(dtype), (b.T * weights.scaling).to(dtype).contiguous())
            for path, (a, b) in weights.tensors.items()
        }
        broken = [path for path, pair in tensors.items() if not all(bool(t.isfinite().all()) for t in pair)]
        if broken:
            raise AdapterCorrupt(
                f"adapter {digest} is not finite at {broken[0]}; its training diverged, train it again",
                metadata={"digest": digest},
            )
        return cls(digest, weights.config.rank, tensors)


class _Stack:
    """A [capacity, in] and B [capacity, out] of one linear."""

    def __init__(self, linear: nn.Linear, capacity: int) -> None:
        self.a = linear.weight.new_zeros((capacity, linear.in_features))
        self.b = linear.weight.new_zeros((capacity, linear.out_features))

    def grow(self, capacity: int) -> None:
        for name in ("a", "b"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((capacity, old.shape[1]))
            new[: old.shape[0]] = old
            setattr(self, name, new)


class RowLora:
    """Hooks on the linears of `model`. `place` before rows with an adapter run, `use` before each forward."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._stacks: dict[str, _Stack] = {}
        self._spans: dict[str, Span] = {}
        self._capacity = 0
        self._live: Span = (0, 0)
        self._others: Tensor | None = None

    def room(self, adapters: Iterable[Adapter], running: Iterable[Adapter], limit: int) -> bool:
        """Whether the ranks of `running` and `adapters` together stay within `limit`; a first one is always let in."""
        held = {a.digest: a.rank for a in running}
        wanted = held | {a.digest: a.rank for a in adapters}
        return not held or sum(wanted.values()) <= limit

    def place(self, adapters: Sequence[Adapter], running: Iterable[Adapter]) -> None:
        """Puts adapters into the stacks; those that no running row has make way."""
        missing = list({a.digest: a for a in adapters if a.digest not in self._spans}.values())
        if not missing:
            return
        keep = {a.digest for a in running} | {a.digest for a in adapters}
        self._spans = {digest: span for digest, span in self._spans.items() if digest in keep}
        for adapter in missing:
            span = self._free(adapter.rank)
            self._spans[adapter.digest] = span
            self._write(adapter, span)

    def use(self, rows: Sequence[Sequence[Adapter]]) -> None:
        """Which adapters the rows of the next forward have, in its order."""
        spans = [[self._spans[a.digest] for a in adapters] for adapters in rows]
        own = {span for row in spans for span in row}
        if not own:
            self._live = (0, 0)
            return
        low, high = min(s for s, _ in own), max(e for _, e in own)
        self._live = (low, high)
        others = torch.ones((len(rows), 1, high - low), dtype=torch.bool)
        for place, row in enumerate(spans):
            for start, end in row:
                others[place, 0, start - low : end - low] = False
        self._others = others.to(next(self._model.parameters()).device) if bool(others.any()) else None

    def _free(self, rank: int) -> Span:
        start = 0
        for low, high in sorted(self._spans.values()):
            if low - start >= rank:
                break
            start = max(start, high)
        if start + rank > self._capacity:
            self._capacity = max(start + rank, self._capacity * 3 // 2)
            for stack in self._stacks.values():
                stack.grow(self._capacity)
        return start, start + rank

    def _write(self, adapter: Adapter, span: Span) -> None:
        for path in adapter.tensors:
            if path not in self._stacks:
                linear = self._model.get_submodule(path)
                assert isinstance(linear, nn.Linear)
                self._stacks[path] = stack = _Stack(linear, self._capacity)
                linear.register_forward_hook(self._hook(stack))
        for path, stack in self._stacks.items():
            a, b = stack.a[span[0] : span[1]], stack.b[span[0] : span[1]]
            if path in adapter.tensors:
                own_a, own_b = adapter.tensors[path]
                a.copy_(own_a)
                b.copy_(own_b)
            else:
                a.zero_()
                b.zero_()

    def _hook(self, stack: _Stack) -> Any:
        def add(_linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            low, high = self._live
            if low == high:
                return
            hidden = args[0] @ stack.a[low:high].T
            if self._others is not None:
                # Filled, not multiplied: another row's adapter may have made an infinity.
                hidden.masked_fill_(self._others, 0.0)
            output.view(-1, output.shape[-1]).addmm_(hidden.flatten(0, 1), stack.b[low:high])

        return add
