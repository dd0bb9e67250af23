"""Grids, pairs and tasks of the Abstraction and Reasoning Corpus, and grids as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.uint8]
"""Colours 0-9, [height, width]."""

MAX_SIDE = 30
COLOURS = 10


class GridStyle(StrEnum):
    """How a grid is written. The cheapest style depends on the tokenizer: Llama 3 joins digits in threes, so `compact`
    hides columns from it; tokenizers that split digits read `compact` with one token per cell."""

    LIST = "list"
    """`[[0, 1], [2, 3]]`, as SEAL does."""
    SPACED = "spaced"
    """One row per line, colours separated by spaces."""
    COMPACT = "compact"
    """One row per line, colours without separator."""


class MalformedGrid(ValueError):
    """A text that is not a grid; the message says why."""


@dataclass(frozen=True, eq=False)
class Pair:
    input: Grid
    output: Grid


@dataclass(frozen=True, eq=False)
class Task:
    """Demonstrations and one test pair. Two tasks are equal if their `key` is."""

    train: tuple[Pair, ...]
    test: Pair

    @cached_property
    def key(self) -> bytes:
        """All grids with their sizes, unambiguous."""
        return b"".join(bytes(grid.shape) + grid.tobytes() for grid in self.grids())

    def grids(self) -> Iterator[Grid]:
        """Every grid, the test pair's last."""
        for pair in (*self.train, self.test):
            yield pair.input
            yield pair.output

    @property
    def fits(self) -> bool:
        """Whether no side is longer than 30."""
        return all(max(grid.shape) <= MAX_SIDE for grid in self.grids())


def make_grid(rows: Sequence[Sequence[int]]) -> Grid:
    """A grid from lists of colours. Raises MalformedGrid if it is empty, ragged, too large, or not of integers 0-9."""
    if not rows or not rows[0]:
        raise MalformedGrid("it is empty")
    if ragged := next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), 0):
        raise MalformedGrid(f"row {ragged} has {len(rows[ragged])} cells, row 0 has {len(rows[0])}")
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        raise MalformedGrid(f"it is {len(rows)} × {len(rows[0])}; no side may be longer than {MAX_SIDE}")
    for row in rows:
        for cell in row:
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise MalformedGrid(f"{cell!r} is not a colour; colours are 0 to 9")
    return np.array(rows, dtype=np.uint8)


def to_text(grid: Grid, style: GridStyle) -> str:
    """The grid as text; `from_text` reads every style."""
    if style is GridStyle.LIST:
        return json.dumps(grid.tolist())
    between = " " if style is GridStyle.SPACED else ""
    return "\n".join(between.join(map(str, row)) for row in grid.tolist())


_LINES = re.compile(r"[0-9](?: ?[0-9])*(?:[^\S\n]*\n\s*[0-9](?: ?[0-9])*)*")


def from_text(text: str) -> Grid:
    """The grid of a text, in any style and with nothing but white space around it. Raises MalformedGrid."""
    text = text.strip()
    if text.startswith("["):
        return make_grid(_rows_of_json(text))
    if not _LINES.fullmatch(text):
        raise MalformedGrid("it is not a grid: expected rows of the digits 0-9, or a JSON list of lists")
    return make_grid([[int(cell) for cell in line if cell.isdigit()] for line in text.splitlines() if line.strip()])


def _rows_of_json(text: str) -> list[list[int]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedGrid("its JSON is invalid") from error
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise MalformedGrid("it is not a list of lists")
    return rows
