"""Can self-edits be ranked without training? `python -m benchmarks.surrogate [--data selection_A.jsonl.gz --verdicts
verdicts_A.jsonl.gz]`, a few seconds, no model.

The surrogate is the share of the exam's gold answers that a self-edit contains, by the judge `content`. It is compared
with the recorded reward, the accuracy of the adapter that was trained on the self-edit, within the self-edits of one
passage: SEAL's recorded selections (five a passage, mean of three trainings). Beside it the reward of one training as a
surrogate of the mean of the other two, which says how well any surrogate could do. The questions of a passage are those
on its title, in the recorded verdicts, whose gold answer is in the passage.

A second table: what the self-edits of SEAL's policies contain, by round; each round has passages of its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.page import figures
from benchmarks.study.page import head, row
from sealkit.judges.agreement import ranking
from sealkit.judges.content import decide
from sealkit.stats import bootstrap
from sealkit.types import Outcome

Group = Sequence[tuple[float, float]]
"""Self-edits on one context: surrogate and reward of each."""
CONTAINED = "gold answers contained"
HEADS = ("surrogate", "groups", "rank correlation with the reward", "of the best one's gain")


def contained(exam: Sequence[tuple[str, str]], text: str) -> float:
    """The share of the exam's questions, each with its gold answer, whose gold answer is in the text."""
    return fmean(decide(question, gold, text).outcome is Outcome.CORRECT for question, gold in exam)


def ranked(label: str, groups: Sequence[Group], passages: Sequence[str]) -> str:
    """A row of the table: Spearman's rank correlation within groups, its mean over groups with a 95 % bootstrap
    interval over `passages` (of each group), and the gain over a random choice from taking each group's best by the
    surrogate, as a share of that from taking its best by the reward. Groups of fewer than three, or with one reward,
    are left out."""
    own = [(one.spearman, name) for group, name in zip(groups, passages, strict=True) if (one := ranking([group]))]
    found, interval = (
        ranking(groups),
        bootstrap([rank for rank, _ in own], clusters=[name for _, name in own], low=-1.0),
    )
    if found is None or interval is None:
        return row(label, "0", "–", "–")
    return row(
        label,
        str(found.groups),
        f"{found.spearman:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]",
        f"{found.gain_kept:.2f}",
    )


def recorded(
    selections: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]
) -> dict[str, list[tuple[Group, str]]]:
    """Groups of SEAL's records with their passages, by surrogate."""
    asked = questions_by_title(verdicts)
    groups: dict[str, list[tuple[Group, str]]] = {CONTAINED: [], "characters": [], "the reward of one training": []}
    for record in selections:
        passage, completions = record["context"], record["completions"]
        if exam := exam_of(record, asked):
            found = [(contained(exam, c["text"]), c["adapter_mean"]) for c in completions]
            groups[CONTAINED].append((found, passage))
        groups["characters"].append(([(len(c["text"]), c["adapter_mean"]) for c in completions], passage))
        if all(c["run_verdicts"] for c in completions):
            runs = [[fmean(verdicts) for verdicts in c["run_verdicts"]] for c in completions]
            groups["the reward of one training"] += [
                ([(own[i], fmean(own[:i] + own[i + 1 :])) for own in runs], passage) for i in range(min(map(len, runs)))
            ]
    return groups


def by_round(selections: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]) -> str:
    """A table: by round the number of passages, and means over them, with 95 % intervals, of what a self-edit contains
    and of its adapter's accuracy, and of the best of each group."""
    asked = questions_by_title(verdicts)
    rounds: dict[int, dict[str, list[tuple[float, float]]]] = defaultdict(dict)
    for record in selections:
        if exam := exam_of(record, asked):
            rounds[record["iter"]][record["context"]] = [
                (contained(exam, c["text"]), c["adapter_mean"]) for c in record["completions"]
            ]
    lines = head(["round", "passages", CONTAINED, "of the best", "accuracy", "of the best"])
    for number, groups in sorted(rounds.items()):
        cells = [
            figures({passage: take([pair[part] for pair in pairs]) for passage, pairs in groups.items()})
            for part in (0, 1)
            for take in (fmean, max)
        ]
        lines.append(row(str(number + 1), str(len(groups)), *cells))
    return "\n".join(lines)


def questions_by_title(verdicts: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Gold answers by title and question."""
    asked: dict[str, dict[str, str]] = defaultdict(dict)
    for verdict in verdicts:
        asked[verdict["title"]][verdict["question"]] = verdict["gold"]
    return asked


def exam_of(record: dict[str, Any], asked: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """The questions on a passage's title, with gold answers, whose gold answer is in the passage."""
    return [pair for pair in asked[record["title"]].items() if pair[1].lower() in record["context"].lower()]


def _read(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main() -> None:
    folder = Path(os.environ.get("REFERENCE_DATA", "."))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=folder / "selection_A.jsonl.gz")
    parser.add_argument("--verdicts", type=Path, default=folder / "verdicts_A.jsonl.gz")
    chosen = parser.parse_args()
    selections, verdicts = _read(chosen.data), _read(chosen.verdicts)
    groups = recorded(selections, verdicts)
    lines = (ranked(label, *zip(*own, strict=True)) for label, own in groups.items() if own)
    print("\n".join([*head(HEADS), *lines]))
    print(f"\n{by_round(selections, verdicts)}")


if __name__ == "__main__":
    main()
