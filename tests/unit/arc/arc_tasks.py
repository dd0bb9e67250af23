"""Grids and tasks that the tests of the ARC domain share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sealkit.domains.arc.grids import Pair
from sealkit.domains.arc.toolkit import DataGeneration

grids = arrays.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 9))
pairs = st.builds(Pair, grids, grids)
demonstrations = st.lists(pairs, min_size=1, max_size=4)
seeds = st.integers(0, 2**63)
flags = st.builds(DataGeneration, **dict.fromkeys(DataGeneration.model_fields, st.booleans()))

ALL = DataGeneration(**dict.fromkeys(DataGeneration.model_fields, True))
NONE = DataGeneration(**dict.fromkeys(DataGeneration.model_fields, False))


def pair(*numbers: int) -> dict[str, Any]:
    """A pair whose output is the input upside down."""
    rows = [list(numbers), [0] * len(numbers)]
    return {"input": rows, "output": rows[::-1]}


def record(name: str = "task", **changes: Any) -> dict[str, Any]:
    return {"id": name, "train": [pair(1, 2), pair(3, 4), pair(5, 6)], "test": [pair(7, 8)]} | changes
