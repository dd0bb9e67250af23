"""Rows of a step that belong to jobs: adjacent blocks of one width, which one batched product can process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """`blocks` adjacent blocks of `width` rows each, from row `start` of the step."""

    start: int
    blocks: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Their view [blocks, width, features] of x [rows of the step, features]."""
        rows = x[self.start : self.start + self.blocks * self.width]
        return rows.view(self.blocks, self.width, x.shape[1])


def alike(lengths: Sequence[int], *, padding: bool) -> Iterator[slice]:
    """Splits `lengths`, ascending, into runs of a common width. Without `padding`, lengths in a run are equal; with it,
    a run ends where padding would cost more than another call."""
    start = 0
    for i, length in enumerate(lengths):
        longest = lengths[start] * 1.25 + 8 if padding else lengths[start]
        if length > longest:
            yield slice(start, i)
            start = i
    if lengths:
        yield slice(start, len(lengths))
