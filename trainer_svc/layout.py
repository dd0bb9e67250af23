"""The layout of an adapter's matrices in one flat tensor, so that all are copied, updated and stacked in one
operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Groups = tuple[tuple[str, ...], ...]
"""The linear layers of a model by path, grouped by common input, in the model's order."""

Shapes = tuple[tuple[str, torch.Size, torch.Size], ...]


class Member(NamedTuple):
    """One adapted linear of a group: its index in the group, its columns of the group's product with A, and its B
    [adapters, out, rank]."""

    place: int
    columns: slice
    b: Tensor


class Views(NamedTuple):
    """The matrices of stacked adapters at one group: the concatenated A of its adapted linears, [adapters, ranks, in],
    and the linears. `starts`: offsets of A and of each member's B in the flat tensor."""

    group: int
    a: Tensor
    members: tuple[Member, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """First A of each adapted linear, then, from `b_start`, B of each, both group by group; `spans`: what belongs to
    each group in both parts. All adapters of the same shapes share one object; adapters that share a layout can be
    stacked."""

    groups: Groups
    shapes: dict[str, tuple[torch.Size, torch.Size]]
    starts: dict[str, tuple[int, int]]
    spans: tuple[tuple[int, tuple[int, int]], ...]
    b_start: int
    size: int

    @classmethod
    def of(cls, tensors: Mapping[str, tuple[Tensor, Tensor]], groups: Groups) -> Layout:
        return _layout(tuple((path, a.shape, b.shape) for path, (a, b) in sorted(tensors.items())), groups)

    def flatten(self, tensors: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """[size]"""
        flat = torch.empty(self.size, dtype=next(iter(tensors.values()))[0].dtype)
        for path, matrices in self.matrices(flat).items():
            for into, value in zip(matrices, tensors[path], strict=True):
                into.copy_(value)
        return flat

    def matrices(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """A [rank, in] and B [out, rank] of each linear, views of `flat` [size]."""
        return {
            path: (
                flat[a : a + a_shape.numel()].view(a_shape),
                flat[b : b + b_shape.numel()].view(b_shape),
            )
            for (path, (a_shape, b_shape)), (a, b) in zip(self.shapes.items(), self.starts.values(), strict=True)
        }

    def views(self, group: int, values: Tensor, *, apart: bool) -> tuple[Views, ...]:
        """The matrices at a group, of `values` [adapters, size]; with `apart` separately for each linear."""
        paths = [path for path in self.groups[group] if path in self.shapes]
        sets = [[path] for path in paths] if apart else [paths] if paths else []
        return tuple(self._views(group, some, values) for some in sets)

    def _views(self, group: int, paths: Sequence[str], values: Tensor) -> Views:
        members, ranks = [], 0
        for path in paths:
            (rank, _), (out, _) = self.shapes[path]
            b = cut(values, self.starts[path][1], out, rank)
            members.append(Member(self.groups[group].index(path), slice(ranks, ranks + rank), b))
            ranks += rank
        a_start = self.starts[paths[0]][0]
        a = cut(values, a_start, ranks, self.shapes[paths[0]][0][1])
        return Views(group, a, tuple(members), (a_start, *(self.starts[path][1] for path in paths)))


def cut(values: Tensor, start: int, rows: int, columns: int) -> Tensor:
    """A matrix of each adapter, [adapters, rows, columns], of `values` [adapters, size]."""
    return values.as_strided(
        (len(values), rows, columns), (values.stride(0), columns, 1), values.storage_offset() + start
    )


@lru_cache(maxsize=256)
def _layout(shapes: Shapes, groups: Groups) -> Layout:
    by_path = {path: (a, b) for path, a, b in shapes}
    adapted = [(index, [path for path in group if path in by_path]) for index, group in enumerate(groups)]
    offsets: list[dict[str, int]] = [{}, {}]
    spans: list[tuple[int, tuple[int, int]]] = []
    ends = []
    end = 0
    for part, starts in enumerate(offsets):
        for index, paths in adapted:
            begin = end
            for path in paths:
                starts[path] = end
                end += by_path[path][part].numel()
            spans.append((index, (begin, end)))
        ends.append(end)
    ordered = {path: by_path[path] for _, paths in adapted for path in paths}
    both = {path: (offsets[0][path], offsets[1][path]) for path in ordered}
    return Layout(groups, ordered, both, tuple(spans), ends[0], end)
