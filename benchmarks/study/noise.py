"""Where the variance of a self-edit's score comes from: which task, which self-edit, which training seed.

Nested components of variance by the method of moments: half the mean squared difference of two trials that share the
task and the text of the self-edit is the variance between training seeds; of two with other texts on one task it is
that plus the variance between texts; of two on different tasks it is the sum of all three. Pairs are of one policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from benchmarks.study.results import Results, score
from sealkit.resources import Editor

RESAMPLES = 1000


@dataclass(frozen=True)
class Task:
    """A policy's trials on one task. `same` and `other`: half the squared differences, summed over its pairs of trials
    with the same text and with other texts; `mean` and `square`: of the scores and of their squares."""

    same: float
    same_pairs: int
    other: float
    other_pairs: int
    mean: float
    square: float

    @classmethod
    def of(cls, trials: Sequence[tuple[str, float]]) -> Task:
        """From the texts and scores of at least one trial."""
        halves: dict[bool, list[float]] = {True: [], False: []}
        for (text, one), (another, two) in combinations(trials, 2):
            halves[text == another].append((one - two) ** 2 / 2)
        return cls(
            same=sum(halves[True]),
            same_pairs=len(halves[True]),
            other=sum(halves[False]),
            other_pairs=len(halves[False]),
            mean=fmean(value for _, value in trials),
            square=fmean(value**2 for _, value in trials),
        )


@dataclass(frozen=True)
class Components:
    """Variances of a score in [0, 1]."""

    task: float
    text: float
    seed: float

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of the variance of a single trial: task, text, seed. NaN without any variance."""
        total = self.task + self.text + self.seed
        return tuple(part / total if total else float("nan") for part in (self.task, self.text, self.seed))  # type: ignore[return-value]

    def error_of_mean(self, tasks: int, samples: int) -> float:
        """Standard error of a policy's mean over so many tasks with so many self-edits on each."""
        return float(((self.task + (self.text + self.seed) / samples) / tasks) ** 0.5)


def tasks_of(run: Results) -> dict[str, list[Task]]:
    """The tasks of each policy, by its number. Failed trials are left out."""
    found: dict[str, dict[tuple[str, str], list[tuple[str, float]]]] = {}
    for trial in run.trials:
        if trial.editor == Editor.POLICY and (value := score(trial)) is not None:
            task = (trial.phase.value, trial.context_id)
            found.setdefault(trial.policy, {}).setdefault(task, []).append((trial.completion, value))
    return {policy: [Task.of(trials) for trials in tasks.values()] for policy, tasks in found.items()}


def components(policies: Sequence[Sequence[Task]]) -> Components:
    """Of all policies together, each given as its tasks, at least two. A negative estimate counts as 0; without two
    trials of one text on a task the variance between seeds does too, and is in that between texts."""
    tasks = [task for own in policies for task in own]
    pairs = sum(task.same_pairs for task in tasks)
    same = sum(task.same for task in tasks) / pairs if pairs else 0.0
    others = [task.other / task.other_pairs for task in tasks if task.other_pairs]
    other = max(same, fmean(others)) if others else same
    return Components(task=max(0.0, fmean(map(_between, policies)) - other), text=other - same, seed=same)


def resampled(policies: Sequence[Sequence[Task]]) -> Iterator[Components]:
    """`components` of bootstrap samples over the tasks of each policy."""
    random = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield components([[own[i] for i in random.integers(0, len(own), len(own))] for own in policies])


def _between(tasks: Sequence[Task]) -> float:
    """Half the mean squared difference of trials on different tasks, tasks weighted alike."""
    means, n = np.array([task.mean for task in tasks]), len(tasks)
    products = (means.sum() ** 2 - (means**2).sum()) / (n * (n - 1))
    return float(fmean(task.square for task in tasks) - products)
