"""Calibrating a judge: the figures by hand, and the command that prints them."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from typer.testing import CliRunner

from seal_cli.main import app
from sealkit.errors import InvalidDataset
from sealkit.judges import Answer, Judgement
from sealkit.judges.agreement import Agreement, agreement, ranking
from sealkit.judges.calibration import calibrate, read_records
from sealkit.types import Outcome


@dataclass(frozen=True)
class Echo:
    """Says what the answer says."""

    name: str = "echo"
    version: str = "1"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        return Judgement(Outcome(answers[0].text))


def verdict(answer: str, recorded: bool, **more: Any) -> dict[str, Any]:
    return {"question": "q", "gold": "g", "answer": answer, "verdict": recorded, **more}


async def test_ungraded_answers_are_counted_apart() -> None:
    found = await calibrate(
        Echo(),
        [verdict("correct", True), verdict("incorrect", True), verdict("ungraded", True), verdict("correct", False)],
    )
    assert found.agreement == Agreement(both=1, only_judge=1, only_reference=1, neither=0)
    assert (found.n, found.ungraded_share) == (4, 0.25)
    assert found.ranking is None


async def test_sources_are_compared_where_they_were_asked_the_same() -> None:
    def source(name: str, answer: str, recorded: bool, question: str = "q", n: int = 1) -> dict[str, Any]:
        return verdict(answer, recorded, title="t", source=name, n=n) | {"question": question}

    records = [
        *(source("a", "correct", True), source("a", "incorrect", False, n=3)),
        *(source("b", "correct", True), source("b", "correct", True)),
        source("c", "incorrect", False),
        source("d", "incorrect", True, question="another"),
    ]
    found = (await calibrate(Echo(), records)).ranking
    assert found is not None
    assert (found.groups, found.spearman, found.gain_kept) == (1, pytest.approx(1), 1)


SELECTION = [
    {
        "title": "t",
        "completions": [
            {"run_verdicts": [[True, True]]},
            {"run_verdicts": [[False, False]]},
            {"run_verdicts": [[True, False]]},
        ],
    },
    {"title": "t", "completions": [{"run_verdicts": None}]},
]


async def test_a_perfect_judge_loses_nothing_in_selection_and_a_blind_one_all() -> None:
    perfect = [verdict("correct", True, title="t")] * 50 + [verdict("incorrect", False, title="t")] * 50
    blind = [verdict("correct", recorded, title="t") for recorded in [True, False] * 50]
    kept = [(await calibrate(Echo(), records, SELECTION)).selection for records in (perfect, blind)]
    assert kept[0] is not None
    assert kept[0].gain_kept > 0.95
    assert kept[1] is not None
    assert kept[1].spearman == 0
    assert (await calibrate(Echo(), perfect, SELECTION)).selection == kept[0]


def test_figures_of_agreement() -> None:
    counted = Agreement(both=40, only_judge=10, only_reference=5, neither=45)
    assert counted.accuracy == pytest.approx(0.85)
    assert counted.kappa == pytest.approx(0.7)
    assert (counted.precision, counted.recall) == pytest.approx((0.8, 40 / 45))
    assert Agreement(3, 0, 0, 0).kappa == 1.0
    assert agreement([]) is None


def test_the_first_of_equals_is_selected() -> None:
    found = ranking([[(0.5, 0.0), (0.5, 1.0), (0.1, 0.5)]])
    assert found is not None
    assert found.gain_kept == -1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_spearman_is_that_of_scipy(scores: list[tuple[int, int]]) -> None:
    judged, recorded = zip(*scores, strict=True)
    found = ranking([[(float(j), float(r)) for j, r in scores]])
    if len(set(recorded)) == 1:
        assert found is None
    else:
        assert found is not None
        expected = spearmanr(judged, recorded).statistic if len(set(judged)) > 1 else 0
        assert found.spearman == pytest.approx(expected)


@pytest.mark.parametrize("field", ["question", "gold", "answer", "verdict"])
async def test_a_record_that_lacks_a_field_is_named(field: str) -> None:
    records = [verdict("correct", True), verdict("correct", True)]
    del records[1][field]
    with pytest.raises(InvalidDataset, match=f"record 2 .*{field}"):
        await calibrate(Echo(), records)


@pytest.mark.parametrize("content", [b"", b"{", b"\x1f\x8bno", b"[1]\n"])
def test_a_file_that_holds_no_records_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InvalidDataset, match="f"):
        read_records(tmp_path / "f")


def test_the_command_prints_the_figures(tmp_path: Path) -> None:
    records = [
        {"question": "What metal?", "gold": "copper", "answer": "It is copper.", "verdict": True},
        {"question": "What metal?", "gold": "copper", "answer": "Tin.", "verdict": False},
        {"question": "What metal?", "gold": "copper", "answer": "Iron.", "verdict": True},
    ]
    (tmp_path / "v.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    done = CliRunner().invoke(app, ["judge", "calibrate", "--verdicts", str(tmp_path / "v.gz")])
    assert done.exit_code == 0, done.output
    printed = dict(line.split("\t") for line in done.stdout.splitlines())
    assert (printed["answers"], printed["accuracy"], printed["recall"]) == ("3", "0.6667", "0.5000")


@pytest.mark.parametrize("arguments", [["--verdicts", "gone.jsonl"], ["--verdicts", __file__]])
def test_the_command_refuses_what_it_cannot_read(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["judge", "calibrate", *arguments]).exit_code == 2
