"""A judge compared with recorded verdicts: how often it agrees, and what selecting by it would have cost.

A verdicts file holds JSON lines {question, gold, answer, verdict}, optionally with `title` and `source` (whose answer
it is: rank is compared among sources that were asked the same questions) and `n` (how often the answer came). A
selection file holds lines {title, completions: [{run_verdicts: [[bool per question] per run]}]}.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sealkit.concurrency import gather_or_cancel
from sealkit.dataset import read_rows
from sealkit.errors import InvalidDataset
from sealkit.judges.agreement import Agreement, Ranking, agreement, ranking
from sealkit.judges.base import Answer, Judge
from sealkit.types import Outcome

Record = Mapping[str, Any]

_DRAWS = 200
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Calibration:
    """A judge compared with recorded verdicts. What the recorded data cannot answer is None."""

    judge: str
    version: str
    n: int
    ungraded: int
    agreement: Agreement | None
    ranking: Ranking | None
    selection: Ranking | None = None

    @property
    def ungraded_share(self) -> float:
        """Share of the answers that the judge could not grade; they are excluded from everything else."""
        return self.ungraded / self.n


async def calibrate(judge: Judge, verdicts: Sequence[Record], selection: Sequence[Record] = ()) -> Calibration:
    """Runs `judge` on every recorded answer. Raises InvalidDataset for records with missing fields."""
    graded = await grade(judge, verdicts)
    return Calibration(
        judge=judge.name,
        version=judge.version,
        n=len(verdicts),
        ungraded=len(verdicts) - len(graded),
        agreement=agreement((right, bool(record["verdict"])) for record, right in graded),
        ranking=ranking(by_source(graded)),
        selection=ranking(imagined_selection(graded, selection)) if selection else None,
    )


async def grade(judge: Judge, verdicts: Sequence[Record]) -> list[tuple[Record, bool]]:
    """The records that `judge` could grade, each with its verdict. Raises InvalidDataset."""
    _check(verdicts, {"question": str, "gold": str, "answer": str, "verdict": bool | int})
    outcomes: list[Outcome] = []
    for start in range(0, len(verdicts), _AT_ONCE):
        some = verdicts[start : start + _AT_ONCE]
        judged = await gather_or_cancel(*(judge.judge(r["question"], r["gold"], [Answer(r["answer"])]) for r in some))
        outcomes += [one.outcome for one in judged]
    return [
        (record, outcome is Outcome.CORRECT)
        for record, outcome in zip(verdicts, outcomes, strict=True)
        if outcome is not Outcome.UNGRADED
    ]


def by_source(graded: Sequence[tuple[Record, bool]]) -> list[list[tuple[float, float]]]:
    """Groups of sources that were asked the same questions about one title: each source's accuracy by the judge and by
    the recorded verdicts."""
    sources: dict[tuple[str, str], list[tuple[Record, bool]]] = defaultdict(list)
    for record, right in graded:
        if "title" in record and "source" in record:
            sources[record["title"], record["source"]].append((record, right))
    groups: dict[tuple[str, frozenset[str]], list[tuple[float, float]]] = defaultdict(list)
    for (title, _), answers in sources.items():
        times = sum(record.get("n", 1) for record, _ in answers)
        judged = sum(record.get("n", 1) * right for record, right in answers) / times
        recorded = sum(record.get("n", 1) * bool(record["verdict"]) for record, _ in answers) / times
        groups[title, frozenset(record["question"] for record, _ in answers)].append((judged, recorded))
    return list(groups.values())


def imagined_selection(
    graded: Sequence[tuple[Record, bool]], selection: Sequence[Record], seed: int = 0
) -> list[list[tuple[float, float]]]:
    """Groups of completions, scored as this judge might have and as recorded, over many draws.

    The selection file has verdicts without answers, so the judge cannot be run on it. Instead each question of a
    passage gets the error rates of the judge on a question drawn from the verdicts (of the same title if there is one),
    and every recorded verdict on it is kept or inverted at those rates. So errors that belong to a question affect all
    completions alike, as they do in reality. Passages without verdicts are left out.

    Raises InvalidDataset.
    """
    _check(selection, {"completions": list})
    rates, draw = _question_rates(graded), random.Random(seed)
    anywhere = [rate for of_title in rates.values() for rate in of_title]
    groups = []
    for passage in selection:
        runs = [completion.get("run_verdicts") or [] for completion in passage["completions"]]
        if not anywhere or not all(runs):
            continue
        of_title = rates.get(passage.get("title", ""), anywhere)
        asked = max(len(run) for completion in runs for run in completion)
        for _ in range(_DRAWS):
            kept = [draw.choice(of_title) for _ in range(asked)]
            groups.append([(_score(completion, draw, kept), _score(completion)) for completion in runs])
    return groups


def _score(
    runs: Sequence[Sequence[bool]], draw: random.Random | None = None, rates: Sequence[tuple[float, float]] = ()
) -> float:
    """Mean accuracy over runs; with `rates`, of verdicts drawn by them."""
    if draw is None:
        return fmean(fmean(run) for run in runs)
    return fmean(fmean(draw.random() < rates[at][not right] for at, right in enumerate(run)) for run in runs)


def _question_rates(graded: Sequence[tuple[Record, bool]]) -> dict[str, list[tuple[float, float]]]:
    """By title, for each question: how often the judge says correct where the recorded verdict is correct, and where it
    is incorrect; both shrunk towards the judge's overall rates with the weight of one answer."""
    said: dict[bool, list[bool]] = {True: [], False: []}
    questions: dict[tuple[str, str], dict[bool, list[bool]]] = defaultdict(lambda: {True: [], False: []})
    for record, right in graded:
        said[bool(record["verdict"])].append(right)
        questions[record.get("title", ""), record["question"]][bool(record["verdict"])].append(right)
    whole = {recorded: fmean(rights) if rights else float(recorded) for recorded, rights in said.items()}
    rates: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (title, _), found in questions.items():
        of_right, of_wrong = ((sum(found[r]) + whole[r]) / (len(found[r]) + 1) for r in (True, False))
        rates[title].append((of_right, of_wrong))
    return rates


def read_records(path: Path) -> list[dict[str, Any]]:
    """JSON lines, gzipped or plain, or another table of records. Raises InvalidDataset with file and line."""
    return [row.values for row in read_rows(str(path))[0]]


def _check(records: Sequence[Record], fields: Mapping[str, Any]) -> None:
    for line, record in enumerate(records, start=1):
        for name, kind in fields.items():
            if not isinstance(record.get(name), kind):
                raise InvalidDataset(f"record {line} has no usable {name!r}; its fields are {', '.join(record)}")
