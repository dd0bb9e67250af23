"""Rows of a step that belong to jobs: blocks of one width side by side, so that one batched product takes them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """`blocks` blocks of `width` rows each, one after the other from row `start` of the step on."""

    start: int
    blocks: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Their view [blocks, width, features] of x [rows of the step, features]."""
        rows = x[self.start : self.start + self.blocks * self.width]
        return rows.view(self.blocks, self.width, x.shape[1])


def alike(lengths: Sequence[int], *, padding: bool) -> Iterator[slice]:
    """Cuts `lengths`, ascending, into runs that may share a width. Without `padding` they are equal in a run; with it,
    cut is where filling up would cost more than another call does."""
    start = 0
    for i, length in enumerate(lengths):
        longest = lengths[start] * 1.25 + 8 if padding else lengths[start]
        if length > longest:
            yield slice(start, i)
            start = i
    if lengths:
        yield slice(start, len(lengths))
