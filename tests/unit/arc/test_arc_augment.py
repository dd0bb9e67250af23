"""Transforms and the tasks made with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings

from sealkit.domains.arc.augment import augmented, leave_out, permuted, training_tasks, transforms
from sealkit.domains.arc.grids import Grid, GridStyle, MalformedGrid, Pair, Task, from_text, make_grid, to_text
from sealkit.domains.arc.toolkit import DataGeneration
from sealkit.domains.arc.transforms import REFLECTIONS, REPEATS, SIZES, VIEWS, recolour, roll
from tests.unit.arc.arc_tasks import ALL, NONE, demonstrations, flags, grids, seeds

EVERY = [*VIEWS.values(), *transforms(ALL), roll(1, 2), recolour(np.arange(9, -1, -1).astype(np.uint8))]


def same(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@given(grid=grids)
@settings(max_examples=50)
def test_the_inverse_undoes_it(grid) -> None:
    assert [t.name for t in EVERY if not same(t.inverse(t.apply(grid)), grid)] == []


@given(grid=grids)
@settings(max_examples=50)
def test_geometry_keeps_colours_in_their_shares(grid) -> None:
    before = Counter(grid.flatten().tolist())
    for transform in EVERY[:-1]:
        after = Counter(transform.apply(grid).flatten().tolist())
        times = sum(after.values()) // sum(before.values())
        assert after == {colour: count * times for colour, count in before.items()}, transform.name


@given(grid=grids)
def test_sizes_are_as_named(grid) -> None:
    height, width = grid.shape
    assert [t.apply(grid).shape for t in SIZES] == [(2 * height, 2 * width), (2 * height, width), (height, 2 * width)]
    assert [t.apply(grid).shape for t in REPEATS] == [(2 * height, width), (height, 2 * width), (2 * height, 2 * width)]
    assert {t.apply(grid).shape for t in REFLECTIONS} == {(2 * height, width), (height, 2 * width)}
    assert all(sorted(turn.apply(grid).shape) == sorted(grid.shape) for turn in VIEWS.values())


def test_turns_go_the_way_they_say() -> None:
    grid = make_grid([[1, 2], [3, 4]])
    turned = {name: turn.apply(grid).tolist() for name, turn in VIEWS.items()}
    assert turned == {
        "identity": [[1, 2], [3, 4]],
        "rotate-90": [[2, 4], [1, 3]],
        "rotate-180": [[4, 3], [2, 1]],
        "rotate-270": [[3, 1], [4, 2]],
        "flip-rows": [[3, 4], [1, 2]],
        "flip-columns": [[2, 1], [4, 3]],
        "transpose": [[1, 3], [2, 4]],
    }


@given(pairs=demonstrations)
def test_leaving_out_asks_for_each_demonstration_under_every_rest(pairs) -> None:
    for n in (1, 2):
        tasks = leave_out(pairs, n)
        assert len(tasks) == len(pairs) * comb(len(pairs) - 1, n - 1)
        assert all(len(task.train) == len(pairs) - n for task in tasks)
        assert all(task.test not in task.train for task in tasks)


@given(pairs=demonstrations, chosen=flags, seed=seeds)
@settings(max_examples=25, deadline=None)
def test_training_tasks_fit_never_repeat_and_repeat_themselves(pairs, chosen: DataGeneration, seed: int) -> None:
    tasks = training_tasks(pairs, chosen, seed=seed)
    assert all(task.fits for task in tasks)
    assert len({task.key for task in tasks}) == len(tasks)
    assert [task.key for task in tasks] == [task.key for task in training_tasks(pairs, chosen, seed=seed)]


def test_tasks_that_grow_beyond_thirty_are_left_out() -> None:
    wide = Pair(np.zeros((2, 16), np.uint8), np.ones((2, 16), np.uint8))
    other = Pair(np.ones((2, 16), np.uint8), np.zeros((2, 16), np.uint8))
    sizes = ALL.model_copy(update={"use_basic_augmentations": False, "use_chain_augmentations": False})
    assert {task.test.input.shape for task in augmented([wide, other], 1, sizes, 0)} == {(2, 16), (4, 16)}


def test_colours_are_permuted_only_beside_other_augmentations() -> None:
    pairs = [Pair(make_grid([[i, 1]]), make_grid([[1, i]])) for i in range(2, 6)]
    plain = augmented(pairs, 1, NONE, 0)
    colours = {frozenset(c for g in task.grids() for c in g.flatten().tolist()) for task in permuted(plain, False, 0)}
    assert colours == {frozenset({1, 2, 3, 4, 5})}
    assert len({t.test.input.tobytes() for t in permuted(plain, True, 0)}) > len(plain)


def test_the_seed_decides_what_is_drawn() -> None:
    pairs = [Pair(make_grid([[i, 1]]), make_grid([[1, i]])) for i in range(2, 6)]
    first, other = ([task.key for task in training_tasks(pairs, ALL, seed=seed)][:20] for seed in (1, 2))
    assert first != other


def test_nothing_depends_on_hash_order() -> None:
    code = (
        "from tests.unit.arc.arc_tasks import ALL\n"
        "from sealkit.domains.arc.augment import training_tasks\n"
        "from sealkit.domains.arc.grids import Pair, make_grid\n"
        "import hashlib\n"
        "pairs = [Pair(make_grid([[i, 1]]), make_grid([[1, i]])) for i in range(2, 6)]\n"
        "print(hashlib.sha256(b''.join(t.key for t in training_tasks(pairs, ALL, seed=3))).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(said) == 1


@given(grid=grids)
def test_every_style_reads_back(grid) -> None:
    for style in GridStyle:
        assert same(from_text(f"\n{to_text(grid, style)} \n"), grid)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a grid"),
        ("[[1, 2], [3]]", "row 1 has 1 cells"),
        ("12\n3", "row 1 has 1 cells"),
        ("[[1, 10]]", "10 is not a colour"),
        ("[[1, true]]", "True is not a colour"),
        ("[]", "empty"),
        ("[[]]", "empty"),
        ("[1, 2]", "not a list of lists"),
        ("[[1, 2", "invalid"),
        ("[" * 5000, "invalid"),
        ("The output is 1 2", "not a grid"),
        ("1" * 31, "no side may be longer than 30"),
    ],
)
def test_a_malformed_grid_says_why(text: str, fault: str) -> None:
    with pytest.raises(MalformedGrid, match=fault):
        from_text(text)


def test_tasks_are_told_apart_by_content_alone() -> None:
    one, two = make_grid([[1, 2]]), make_grid([[1], [2]])
    assert Task((), Pair(one, one)).key == Task((), Pair(one.copy(), one)).key
    assert Task((), Pair(one, one)).key != Task((), Pair(one, two)).key
