"""Training tasks made of a task's demonstrations: some left out, one of those asked for, all of it augmented.

The sets are those of SEAL's reference code (arXiv 2506.10943, after test-time training, arXiv 2411.07279);
`benchmarks/reference_parity.py arc` compares them with recorded ones. They do not depend on hash order: what comes
twice is dropped by content, and the rest is sorted before anything is drawn.
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
"""A grid is translated by less than this, and by less than its side."""


def training_tasks(pairs: Sequence[Pair], chosen: DataGeneration, *, seed: int) -> list[Task]:
    """Leave-one-out and leave-two-out, augmented as `chosen`, then again with colours and demonstrations permuted; in
    an order that the seed decides, so that the first n are drawn by seed."""
    tasks = [task for n in LEAVE_OUT for task in permuted(augmented(pairs, n, chosen, seed), chosen.any, seed)]
    return [tasks[i] for i in np.random.RandomState(_seed32(seed)).permutation(len(tasks))]


def leave_out(pairs: Sequence[Pair], n: int) -> list[Task]:
    """Every task that asks for one demonstration and shows the others but n - 1 of them. With two demonstrations and
    n = 2 none is left to show."""
    tasks = []
    for asked in range(len(pairs)):
        others = [i for i in range(len(pairs)) if i != asked]
        for gone in combinations(others, n - 1):
            tasks.append(Task(tuple(pairs[i] for i in others if i not in gone), pairs[asked]))
    return tasks


def augmented(pairs: Sequence[Pair], n: int, chosen: DataGeneration, seed: int) -> list[Task]:
    """`leave_out`, and each of it under every chosen transform that keeps it within 30 × 30; sorted, none twice."""
    plain = leave_out(pairs, n)
    changed = [transform.on(task) for transform in transforms(chosen) for task in plain]
    if chosen.use_basic_augmentations:
        changed += [translated(task, seed) for task in plain]
    return _distinct([*plain, *(task for task in changed if task.fits)])


def permuted(tasks: Sequence[Task], recoloured: bool, seed: int) -> list[Task]:
    """The tasks, and each once more with its demonstrations in another order and, where asked for, its colours
    permuted; sorted, none twice."""
    rng = np.random.RandomState(_seed32(seed))
    again = []
    for task in tasks:
        other = random_recolour(rng).on(task) if recoloured else task
        again.append(Task(tuple(other.train[i] for i in rng.permutation(len(other.train))), other.test))
    return _distinct([*tasks, *again])


def transforms(chosen: DataGeneration) -> list[Transform]:
    """What the flags choose, but for the translation, which is drawn."""
    groups = (
        (chosen.use_basic_augmentations, (*TURNS, *REFLECTIONS)),
        (chosen.use_size_augmentations, SIZES),
        (chosen.use_chain_augmentations, CHAINS),
        (chosen.use_repeat_augmentations, REPEATS),
    )
    return [transform for wanted, group in groups if wanted for transform in group]


def translated(task: Task, seed: int) -> Task:
    """Every grid rolled. The shifts of a pair, the input's and then the output's, are drawn anew from the seed for each
    pair, as the reference does; so they follow the sizes of the grids, and alike pairs move alike."""

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
