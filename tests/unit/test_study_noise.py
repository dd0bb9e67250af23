"""The decomposition of a score's variance, against scores made with known variances."""

import random
from itertools import product

import pytest

from benchmarks.study.noise import Components, Task, components, resampled


def tasks(task: float, text: float, seed: float, count: int = 400) -> list[Task]:
    """Tasks with four texts, each tried three times; normal effects with these standard deviations."""
    draw = random.Random(0).gauss
    made = []
    for _ in range(count):
        of_task, of_text = draw(0, task), [draw(0, text) for _ in range(4)]
        trials = [(str(i), of_task + of_text[i] + draw(0, seed)) for i, _ in product(range(4), range(3))]
        made.append(Task.of(trials))
    return made


@pytest.mark.parametrize("deviations", [(0.3, 0.2, 0.4), (0.0, 0.3, 0.1), (0.5, 0.0, 0.2)])
def test_known_variances_are_found(deviations: tuple[float, float, float]) -> None:
    found = components([tasks(*deviations)])
    assert (found.task, found.text, found.seed) == pytest.approx([value**2 for value in deviations], abs=0.03)


def test_intervals_hold_the_known_shares_of_several_policies() -> None:
    policies = [tasks(0.3, 0.2, 0.4, 60), tasks(0.3, 0.2, 0.4, 40)]
    shares = sorted(one.shares[2] for one in resampled(policies))
    assert shares[25] < 0.16 / 0.29 < shares[-26]


def test_more_tasks_help_more_than_more_self_edits_on_each() -> None:
    found = Components(task=0.07, text=0.06, seed=0.09)
    assert found.error_of_mean(24, 4) == pytest.approx(((0.07 + 0.15 / 4) / 24) ** 0.5)
    assert found.error_of_mean(48, 2) < found.error_of_mean(24, 4)


def test_without_repeated_texts_seeds_and_texts_are_not_told_apart() -> None:
    lone = [Task.of([("a", 0.0), ("b", 1.0)]), Task.of([("a", 1.0), ("c", 1.0)])]
    found = components([lone])
    assert (found.text, found.seed) == (0.25, 0.0)
