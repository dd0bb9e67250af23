"""Transforms of a grid, each with its (left) inverse: `inverse(apply(g))` is g for every grid g."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sealkit.domains.arc.grids import COLOURS, Grid, Pair, Task

OnGrid = Callable[[Grid], Grid]


@dataclass(frozen=True)
class Transform:
    """A named map of grids."""

    name: str
    apply: OnGrid
    inverse: OnGrid

    def then(self, other: Transform) -> Transform:
        """Both, one after the other."""
        return Transform(
            f"{self.name}+{other.name}",
            lambda grid: other.apply(self.apply(grid)),
            lambda grid: self.inverse(other.inverse(grid)),
        )

    def on(self, task: Task) -> Task:
        """The task with every grid transformed."""
        return map_pairs(task, lambda pair: Pair(self.apply(pair.input), self.apply(pair.output)))


def map_pairs(task: Task, change: Callable[[Pair], Pair]) -> Task:
    """The task with every pair changed."""
    return Task(tuple(map(change, task.train)), change(task.test))


def _rotation(degrees: int) -> Transform:
    turns = degrees // 90
    return Transform(f"rotate-{degrees}", lambda g: np.rot90(g, turns), lambda g: np.rot90(g, -turns))


def _flip(axis: int, name: str) -> Transform:
    return Transform(name, lambda g: np.flip(g, axis), lambda g: np.flip(g, axis))


def _reflection(axis: int, *, mirrored_first: bool, name: str) -> Transform:
    """The grid and its mirror image side by side."""

    def apply(grid: Grid) -> Grid:
        mirrored = np.flip(grid, axis)
        return np.concatenate([mirrored, grid] if mirrored_first else [grid, mirrored], axis)

    def inverse(grid: Grid) -> Grid:
        return np.split(grid, 2, axis)[1 if mirrored_first else 0]

    return Transform(name, apply, inverse)


def _enlargement(down: int, across: int, name: str) -> Transform:
    return Transform(name, lambda g: np.repeat(np.repeat(g, down, 0), across, 1), lambda g: g[::down, ::across])


def _repetition(down: int, across: int, name: str) -> Transform:
    def inverse(grid: Grid) -> Grid:
        return grid[: grid.shape[0] // down, : grid.shape[1] // across]

    return Transform(name, lambda g: np.tile(g, (down, across)), inverse)


def roll(down: int, across: int) -> Transform:
    """Moves every cell, those that leave at one edge coming in at the other."""
    return Transform(
        f"roll-{down}-{across}",
        lambda g: np.roll(g, (down, across), (0, 1)),
        lambda g: np.roll(g, (-down, -across), (0, 1)),
    )


def recolour(permutation: Grid) -> Transform:
    """Colour c becomes `permutation[c]`; a permutation of 0-9."""
    back = np.argsort(permutation).astype(np.uint8)
    name = "recolour-" + "".join(map(str, permutation.tolist()))
    return Transform(name, lambda g: permutation[g], lambda g: back[g])


def random_recolour(rng: np.random.RandomState) -> Transform:
    """Colours permuted, all ten of them."""
    return recolour(rng.permutation(COLOURS).astype(np.uint8))


IDENTITY = Transform("identity", lambda g: g, lambda g: g)
ROTATE_90, ROTATE_180, ROTATE_270 = _rotation(90), _rotation(180), _rotation(270)
FLIP_ROWS, FLIP_COLUMNS = _flip(0, "flip-rows"), _flip(1, "flip-columns")
TRANSPOSE = Transform("transpose", lambda g: g.T, lambda g: g.T)
REFLECTIONS = (
    _reflection(0, mirrored_first=True, name="reflect-up"),
    _reflection(1, mirrored_first=True, name="reflect-left"),
    _reflection(0, mirrored_first=False, name="reflect-down"),
    _reflection(1, mirrored_first=False, name="reflect-right"),
)
RESOLUTION = _enlargement(2, 2, "resolution-2")
SIZES = (RESOLUTION, _enlargement(2, 1, "height-2"), _enlargement(1, 2, "width-2"))
TURNS = (ROTATE_90, ROTATE_270, ROTATE_180, FLIP_ROWS, FLIP_COLUMNS, TRANSPOSE)
"""The symmetries of the square that are used; each keeps the number of cells."""
CHAINS = tuple(turn.then(RESOLUTION) for turn in TURNS)
REPEATS = (_repetition(2, 1, "repeat-down"), _repetition(1, 2, "repeat-across"), _repetition(2, 2, "repeat-both"))
VIEWS = {turn.name: turn for turn in (IDENTITY, *TURNS)}
"""The transforms of a test's views; each is invertible on every grid."""
