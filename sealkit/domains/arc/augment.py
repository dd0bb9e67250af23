"""Training tasks from a task's demonstrations: some are left out, one of those is the query, all grids are augmented.

The sets are those of SEAL's reference code (arXiv 2506.10943, after test-time training, arXiv 2411.07279);
`benchmarks/reference_parity.py arc` compares them with recorded ones. They do not depend on hash order: duplicates are
dropped by content, and the rest is sorted before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from sealkit.domains.arc.grids import Grid, Pair, Task
from sealkit.domains.arc.toolkit import DataGeneration
from sealkit.domains.arc.transforms import (
    CHAINS,
    REFLECTIONS,
    REPEATS,
    SIZES,
    TURNS,
    Transform,
    map_pairs,
    random_recolour,
    roll,
)

LEAVE_OUT = (1, 2)
MAX_SHIFT = 4
"""Translations are below this, and below the grid's side."""


def training_tasks(pairs: Sequence[Pair], chosen: DataGeneration, *, seed: int) -> list[Task]:
    """Leave-one-out and leave-two-out, augmented as `chosen`, then again with colours and demonstrations permuted, in
    an order given by the seed, so that the first n are a random sample."""
    tasks = [task for n in LEAVE_OUT for task in permuted(augmented(pairs, n, chosen, seed), chosen.any, seed)]
    return [tasks[i] for i in np.random.RandomState(_seed32(seed)).permutation(len(tasks))]


def leave_out(pairs: Sequence[Pair], n: int) -> list[Task]:
    """Every task with one demonstration as the query and all others but n - 1 shown. With two demonstrations and n = 2
    none is shown."""
    tasks = []
    for asked in range(len(pairs)):
        others = [i for i in range(len(pairs)) if i != asked]
        for gone in combinations(others, n - 1):
            tasks.append(Task(tuple(pairs[i] for i in others if i not in gone), pairs[asked]))
    return tasks


def augmented(pairs: Sequence[Pair], n: int, chosen: DataGeneration, seed: int) -> list[Task]:
    """`leave_out`, and each of its tasks under every chosen transform that stays within 30 × 30; sorted, without
    duplicates."""
    plain = leave_out(pairs, n)
    changed = [transform.on(task) for transform in transforms(chosen) for task in plain]
    if chosen.use_basic_augmentations:
        changed += [translated(task, seed) for task in plain]
    return _distinct([*plain, *(task for task in changed if task.fits)])


def permuted(tasks: Sequence[Task], recoloured: bool, seed: int) -> list[Task]:
    """The tasks, and each once more with its demonstrations reordered and, if requested, its colours permuted; sorted,
    without duplicates."""
    rng = np.random.RandomState(_seed32(seed))
    again = []
    for task in tasks:
        other = random_recolour(rng).on(task) if recoloured else task
        again.append(Task(tuple(other.train[i] for i in rng.permutation(len(other.train))), other.test))
    return _distinct([*tasks, *again])


def transforms(chosen: DataGeneration) -> list[Transform]:
    """The transforms of the flags, except the translation, which is random."""
    groups = (
        (chosen.use_basic_augmentations, (*TURNS, *REFLECTIONS)),
        (chosen.use_size_augmentations, SIZES),
        (chosen.use_chain_augmentations, CHAINS),
        (chosen.use_repeat_augmentations, REPEATS),
    )
    return [transform for wanted, group in groups if wanted for transform in group]


def translated(task: Task, seed: int) -> Task:
    """Every grid rolled. The shifts of a pair, the input's and then the output's, are drawn from the seed for each
    pair, as the reference does; so they depend on the sizes of the grids, and equal pairs move equally."""

    def move(pair: Pair) -> Pair:
        rng = np.random.RandomState(_seed32(seed))
        return Pair(_shift(pair.input, rng), _shift(pair.output, rng))

    return map_pairs(task, move)


def _shift(grid: Grid, rng: np.random.RandomState) -> Grid:
    down, across = (rng.randint(min(side, MAX_SHIFT)) for side in grid.shape)
    return roll(down, across).apply(grid)


def _distinct(tasks: Iterable[Task]) -> list[Task]:
    by_key = {task.key: task for task in tasks}
    return [by_key[key] for key in sorted(by_key)]


def _seed32(seed: int) -> int:
    return seed % 2**32
