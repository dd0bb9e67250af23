"""Savings and cost of early stopping: `python -m benchmarks.early_stopping [--groups N] [--data selection_A.jsonl.gz]`.

Groups of k trials are answered in full, then stopped on the same answers in a random order. They are compared with the
baseline, as in a run, and with the best trial of the group so far, to see what more could be saved. Simulated answers
follow the Rasch model (1960): P(right) = sigmoid(ability - difficulty), so that the same questions are hard for
baseline and trials. With `--data` SEAL's recorded verdicts are used too, each of its runs as one evaluation. No model
is needed.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from controller.rules.selection import best_of_k
from sealkit.config import EvaluationConfig
from sealkit.stats import bootstrap, enough, futility_bounds

CONFIDENCES = (0.8, 0.9, 0.95, 0.99)
K = 5
RETENTION = EvaluationConfig().retention_limit
"""Retention answers per trial; a stopped trial is not asked for them."""
Rival = Literal["baseline", "best so far"]


@dataclass(frozen=True)
class Group:
    """Answers of k trials to n questions, [k, n] of 0 and 1, and the baseline's accuracy on them."""

    answers: Any
    baseline: float


@dataclass(frozen=True)
class Outcome:
    """One group: the shares of its questions and of all its answers that were saved, whether another trial was
    selected, and the accuracy that this cost."""

    questions: float
    all_answers: float
    changed: bool
    lost: float


def simulated(groups: int, n: int, base: float, rng: np.random.Generator) -> list[Group]:
    """Trials like SEAL's: on average slightly better than the baseline, and different from each other."""
    made = []
    for _ in range(groups):
        difficulty = rng.normal(0, 1.5, n)
        ability = np.log(base / (1 - base)) + np.concatenate(([0.0], rng.normal(0.5, 1.0, K)))
        right = rng.random((K + 1, n)) < 1 / (1 + np.exp(difficulty - ability[:, None]))
        made.append(Group(right[1:].astype(int), float(right[0].mean())))
    return made


def recorded(path: Path) -> list[Group]:
    """SEAL's verdicts, each run of a passage as a group; the baseline is recorded only as a mean."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    groups = []
    for record in records:
        runs = [completion["run_verdicts"] for completion in record["completions"]]
        if not all(runs):
            continue  # the verdicts of some passages were not recorded
        for exam in zip(*runs, strict=True):
            groups.append(Group(np.array(exam, dtype=int), record["completions"][0]["baseline_mean"]))
    return groups


def stopped(group: Group, rival: Rival, confidence: float, interval: int, rng: np.random.Generator) -> Outcome:
    """One sequential test over a random order of the questions, the same for every trial. The best of k is selected."""
    k, n = group.answers.shape
    in_order = group.answers[:, rng.permutation(n)]
    full = in_order.mean(axis=1)
    asked, finished, to_beat = [], [], group.baseline
    for answers, accuracy in zip(in_order, full, strict=True):
        stopped_at = _stopped_at(answers, to_beat, confidence, interval)
        asked.append(stopped_at or n)
        finished.append(stopped_at is None)
        if rival == "best so far" and stopped_at is None:
            to_beat = max(to_beat, float(accuracy))
    gains = [float(a) if a > group.baseline else None for a in full]
    after_stopping = [gain if is_in else None for gain, is_in in zip(gains, finished, strict=True)]
    best, chosen = best_of_k(gains), best_of_k(after_stopping)
    score = [full[kept[0]] if kept else group.baseline for kept in (best, chosen)]
    saved = k * n - sum(asked)
    return Outcome(
        questions=saved / (k * n),
        all_answers=(saved + RETENTION * finished.count(False)) / (k * (n + RETENTION)),
        changed=best != chosen,
        lost=float(score[0] - score[1]),
    )


def _stopped_at(answers: Any, to_beat: float, confidence: float, interval: int) -> int | None:
    """The number of questions after which the trial is stopped; None: it is asked to the end."""
    n = len(answers)
    stops = np.array(futility_bounds(n, enough(to_beat, n), interval, confidence), dtype=int)
    over = np.flatnonzero(np.cumsum(answers)[interval - 1 : n - 1 : interval] <= stops)
    return int((over[0] + 1) * interval) if len(over) else None


def row(label: str, outcomes: Sequence[Outcome]) -> str:
    """A row of the table: means over groups with their 95 % intervals."""
    cells = []
    for name in ("questions", "all_answers", "changed", "lost"):
        estimate = bootstrap([float(getattr(outcome, name)) for outcome in outcomes])
        assert estimate is not None
        digits = 3 if name == "lost" else 1
        scale, unit = (1, "") if name == "lost" else (100, " %")
        low, mean, high = (scale * end for end in (estimate.low, estimate.mean, estimate.high))
        cells.append(f"{mean:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]")
    return f"| {label} | {' | '.join(cells)} |"


def report(title: str, groups: Sequence[Group], interval: int, rng: np.random.Generator) -> Iterable[str]:
    """The table of one set of groups."""
    yield f"\n{title}; {len(groups)} groups, interval {interval}\n"
    yield "| compared with, confidence | questions saved | all answers saved | another selected | accuracy lost |"
    yield "|---|---|---|---|---|"
    for rival in ("baseline", "best so far"):
        for confidence in CONFIDENCES:
            outcomes = [stopped(group, rival, confidence, interval, rng) for group in groups]
            yield row(f"{rival}, {confidence}", outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--groups", type=int, default=2000, help="simulated groups for each table")
    parser.add_argument("--data", type=Path, help="SEAL's recorded selections (selection_A.jsonl.gz)")
    parser.add_argument("--interval", type=int, default=EvaluationConfig().early_stopping_interval)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    print(f"k = {K}; {RETENTION} retention answers per trial; means over groups with 95 % bootstrap intervals")
    for n, base in ((5, 0.3), (20, 0.1), (20, 0.5), (50, 0.3)):
        groups = simulated(chosen.groups, n, base, rng)
        print(*report(f"simulated: {n} questions, baseline about {base}", groups, chosen.interval, rng), sep="\n")
    if chosen.data:
        groups = recorded(chosen.data)
        for interval in (1, chosen.interval):
            print(*report("recorded: SEAL's own verdicts", groups, interval, rng), sep="\n")


if __name__ == "__main__":
    main()
