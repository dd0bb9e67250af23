"""Many LoRA adapters in one batch, each row with its own; the base weights are never changed.

For each linear and each rank, the A and B of the adapters in use are stored in one slab (one tensor). A forward then
takes two batched products per linear, h = x Aᵀ and y += h B, each adapter with its own rows only (S-LoRA, arXiv
2311.03285, with slabs instead of gathered pages). A row with a policy and a trial adapter gets both sums, which equals
the concatenation of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sealkit.backends.lora import LoraWeights
from sealkit.errors import AdapterCorrupt

_PADDING = 2
"""Adapters share a product while it computes at most this many times their actual rows."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """Weights in memory: for each linear's path A [rank, in] and B [rank, out], the scaling in B. Compared by identity,
    not by name: the verification of one object says nothing about another."""

    digest: str
    rank: int
    tensors: Mapping[str, tuple[Tensor, Tensor]] = field(repr=False)

    @classmethod
    def of(cls, digest: str, weights: LoraWeights, dtype: torch.dtype) -> Adapter:
        """Converts to the model's dtype. Raises AdapterCorrupt if a weight is not finite in it."""
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


class Block(NamedTuple):
    """The shape of all products of a forward: the number of adapters, and of rows for each."""

    adapters: int
    rows: int


class _Slab:
    """A [slots, rank, in] and B [slots, rank, out] of one linear's adapters of one rank."""

    def __init__(self, linear: nn.Linear, slots: int, rank: int) -> None:
        self.a = linear.weight.new_zeros((slots, rank, linear.in_features))
        self.b = linear.weight.new_zeros((slots, rank, linear.out_features))

    def grow(self, slots: int) -> None:
        for name in ("a", "b"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((slots, *old.shape[1:]))
            new[: len(old)] = old
            setattr(self, name, new)


@dataclass(eq=False)
class _Run:
    """Adjacent slots in the slabs of one rank, in one product: `slots` of them with up to `width` rows each.

    `rows` [slots * width] are the rows of the batch in the adapters' order, padded with arbitrary rows; `real` marks
    those that count, `owners` the rows they belong to. All None: the batch itself is in that order.
    """

    rank: int
    slots: slice
    width: int
    rows: Tensor | None = None
    real: Tensor | None = None
    owners: Tensor | None = None
    source: Tensor | None = None
    gathered: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, slab: _Slab) -> None:
        """y [n, s, out] += B A x of x [n, s, in], each row with its adapter."""
        a, b = slab.a[self.slots], slab.b[self.slots]
        hidden = torch.bmm(self._gather(x).view(len(a), -1, x.shape[-1]), a.transpose(1, 2))
        if self.owners is None:
            y.view(len(a), -1, y.shape[-1]).baddbmm_(hidden, b)
            return
        delta = torch.bmm(hidden, b).view(-1, *y.shape[1:])
        y.index_add_(0, self.owners, delta if self.real is None else delta.index_select(0, self.real))

    def _gather(self, x: Tensor) -> Tensor:
        if self.rows is None:
            return x
        if self.source is not x:  # q, k and v have the same input, and so have gate and up
            self.source, self.gathered = x, x.index_select(0, self.rows)
        assert self.gathered is not None
        return self.gathered


class RowLora:
    """Hooks on the linears of `model`: call `place` before rows with an adapter run, `use` around each forward. A slab
    starts with `least_slots` slots and doubles, so a `Block` with that many adapters divides it."""

    def __init__(self, model: nn.Module, least_slots: int = 1) -> None:
        self._model = model
        self._least_slots = least_slots
        self._slabs: dict[str, dict[int, _Slab]] = {}
        self._slots: dict[int, list[Adapter | None]] = {}
        self._runs: list[_Run] = []
        self._rows = 0

    def room(self, adapters: Iterable[Adapter], running: Iterable[Adapter], limit: int) -> bool:
        """Whether the ranks of `running` and `adapters` together stay within `limit`; a first one always fits."""
        held = set(running)
        return not held or sum(adapter.rank for adapter in held | set(adapters)) <= limit

    def place(self, adapters: Iterable[Adapter], running: Iterable[Adapter]) -> None:
        """Copies adapters into the slabs; those that no running row uses are evicted."""
        wanted = dict.fromkeys(adapters)
        keep = {*running, *wanted}
        for adapter in wanted:
            slots = self._slots.setdefault(adapter.rank, [])
            if adapter in slots:
                continue
            slots[:] = [held if held in keep else None for held in slots]
            if None not in slots:
                self._grow(adapter.rank)
            slot = slots.index(None)
            slots[slot] = adapter
            self._write(adapter, slot)

    def forget(self, adapter: Adapter) -> None:
        """Frees the adapter's slots; for an adapter that no row uses."""
        slots = self._slots.get(adapter.rank, [])
        slots[:] = [None if held is adapter else held for held in slots]

    def use(self, rows: Sequence[Sequence[Adapter]], block: Block | None = None) -> None:
        """Sets the adapters of the rows of the next forward, in the batch's order; none after it. With `block` a row's
        sum depends only on its own adapters, in shape and in order."""
        device = next(self._model.parameters()).device
        levels = (
            [rows]
            if block is None
            else [[row[i : i + 1] for row in rows] for i in range(max(map(len, rows), default=0))]
        )
        self._runs, self._rows = [], len(rows)
        for level in levels:
            owners: dict[int, dict[int, list[int]]] = {}
            for place, adapters in enumerate(level):
                for adapter in adapters:
                    slot = self._slots[adapter.rank].index(adapter)
                    owners.setdefault(adapter.rank, {}).setdefault(slot, []).append(place)
            for rank, by_slot in owners.items():
                if block is None:
                    self._runs += [_run(rank, group, len(rows), device) for group in _neighbours(by_slot)]
                else:
                    self._runs += [_padded(rank, group, block, device) for group in _blocks(by_slot, block)]

    def _grow(self, rank: int) -> None:
        slots = self._slots[rank]
        slots += [None] * max(self._least_slots, len(slots))
        for slabs in self._slabs.values():
            if rank in slabs:
                slabs[rank].grow(len(slots))

    def _write(self, adapter: Adapter, slot: int) -> None:
        for path in adapter.tensors:
            linear = self._model.get_submodule(path)
            assert isinstance(linear, nn.Linear)
            if path not in self._slabs:
                self._slabs[path] = {}
                linear.register_forward_hook(self._hook(self._slabs[path]))
            if adapter.rank not in self._slabs[path]:
                self._slabs[path][adapter.rank] = _Slab(linear, len(self._slots[adapter.rank]), adapter.rank)
        for path, slabs in self._slabs.items():
            if (slab := slabs.get(adapter.rank)) is None:
                continue
            for whole, own in zip((slab.a, slab.b), adapter.tensors.get(path, (None, None)), strict=True):
                whole[slot].zero_() if own is None else whole[slot].copy_(own)

    def _hook(self, slabs: Mapping[int, _Slab]) -> Any:
        def add(_linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x, y = args[0], output
            if self._runs and (x.ndim != 3 or len(x) != self._rows):  # some layers have all tokens in one dimension
                x, y = (one.view(self._rows, -1, one.shape[-1]) for one in (x.contiguous(), y))
            for run in self._runs:
                if (slab := slabs.get(run.rank)) is not None:
                    run.add(x, y, slab)

        return add


def _neighbours(by_slot: Mapping[int, list[int]]) -> list[dict[int, list[int]]]:
    """Adapters (slot → its rows) grouped into contiguous slots with similar numbers of rows."""
    runs: list[dict[int, list[int]]] = []
    for slot in sorted(by_slot):
        if runs:
            joined = {**runs[-1], slot: by_slot[slot]}
            counts = [len(rows) for rows in joined.values()]
            if slot - 1 in runs[-1] and max(counts) * len(counts) <= _PADDING * sum(counts):
                runs[-1] = joined
                continue
        runs.append({slot: by_slot[slot]})
    return runs


def _run(rank: int, group: Mapping[int, list[int]], batch: int, device: torch.device) -> _Run:
    width = max(map(len, group.values()))
    run = _Run(rank, slice(min(group), max(group) + 1), width)
    owners = [row for rows in group.values() for row in rows]
    if owners == list(range(batch)) and len(owners) == width * len(group):
        return run
    filled = [row for rows in group.values() for row in rows + rows[:1] * (width - len(rows))]
    run.rows = torch.tensor(filled, device=device)
    run.owners = torch.tensor(owners, device=device)
    if len(filled) > len(owners):
        real = [place * width + i for place, rows in enumerate(group.values()) for i in range(len(rows))]
        run.real = torch.tensor(real, device=device)
    return run


def _blocks(by_slot: Mapping[int, list[int]], block: Block) -> list[dict[int, list[int]]]:
    """Adapters (slot → its rows) grouped into products that start at a multiple of `block.adapters` and have at most
    `block.rows` rows of each adapter."""
    blocks: dict[tuple[int, int], dict[int, list[int]]] = {}
    for slot, rows in by_slot.items():
        for turn, first in enumerate(range(0, len(rows), block.rows)):
            part = rows[first : first + block.rows]
            blocks.setdefault((slot // block.adapters, turn), {})[slot] = part
    return list(blocks.values())


def _padded(rank: int, group: Mapping[int, list[int]], block: Block, device: torch.device) -> _Run:
    first = min(group) // block.adapters * block.adapters
    run = _Run(rank, slice(first, first + block.adapters), block.rows)
    filled = [0] * (block.adapters * block.rows)
    real, owners = [], []
    for slot, rows in group.items():
        for i, row in enumerate(rows):
            place = (slot - first) * block.rows + i
            filled[place] = row
            real.append(place)
            owners.append(row)
    run.rows, run.real, run.owners = (torch.tensor(part, device=device) for part in (filled, real, owners))
    return run
