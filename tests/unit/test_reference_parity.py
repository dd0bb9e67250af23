"""The parity command: its exit statuses, and, where the recorded data is at hand, parity itself."""

import gzip
import json
import os
from pathlib import Path

import pytest

from benchmarks.reference_parity import COMPARISONS, main, reward

needs_data = pytest.mark.skipif(
    not os.environ.get("REFERENCE_DATA"), reason="REFERENCE_DATA is unset: no recorded data"
)

SEQUENCE = {
    "title": "T",
    "context": "c",
    "completion": "a\nb",
    "split_newlines": True,
    "sequences": ["T\na", "T\nb", "T\nc"],
}
VERDICT = {"title": "T", "question": "What metal?", "gold": "copper", "answer": "It is copper.", "verdict": True}


def completion(text: str, *runs: list[bool]) -> dict[str, object]:
    return {"text": text, "run_verdicts": list(runs) or None, "adapter_mean": 0.5}


SELECTION = {
    "completions": [completion("x", [True, False]), completion(" y ", [True, True]), completion("z", [True, True])],
    "selected": 1,
    "selected_completion": "y",
}


def written(folder: Path, *records: dict[str, object], packed: bool = True) -> str:
    lines = "\n".join(map(json.dumps, records)).encode()
    path = folder / "records"
    path.write_bytes(gzip.compress(lines) if packed else lines)
    return str(path)


@needs_data
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_parity_on_the_recorded_data(comparison: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([comparison]) == 0
    assert comparison in capsys.readouterr().out


@pytest.mark.parametrize(
    ("comparison", "record"), [("sequences", SEQUENCE), ("selection", SELECTION), ("judge", VERDICT)]
)
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_agreement_exits_0(comparison: str, record: dict[str, object], packed: bool, tmp_path: Path) -> None:
    assert main([comparison, "--data", written(tmp_path, record, packed=packed)]) == 0


@pytest.mark.parametrize(
    ("comparison", "record"),
    [
        ("sequences", SEQUENCE | {"sequences": ["T\na", "T\nc"]}),
        ("selection", SELECTION | {"selected": 2, "selected_completion": "z"}),
        ("selection", SELECTION | {"selected_completion": "something else"}),
        ("judge", VERDICT | {"verdict": False}),
    ],
)
def test_one_difference_exits_1(comparison: str, record: dict[str, object], tmp_path: Path) -> None:
    assert main([comparison, "--data", written(tmp_path, record)]) == 1


def test_a_missing_file_exits_2_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "--data", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err


def test_no_data_named_exits_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("REFERENCE_DATA", raising=False)
    assert main(["sequences"]) == 2
    assert "REFERENCE_DATA" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bbroken", b"{not json"], ids=["empty", "broken gzip", "no json"])
def test_an_unreadable_file_exits_2(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    assert main(["sequences", "--data", str(path)]) == 2


def test_the_wrong_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "--data", written(tmp_path, SEQUENCE)]) == 2
    assert "question" in capsys.readouterr().err


def test_the_default_is_looked_for_in_reference_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sequences_A.jsonl.gz").write_bytes(gzip.compress(json.dumps(SEQUENCE).encode()))
    monkeypatch.setenv("REFERENCE_DATA", str(tmp_path))
    assert main(["sequences"]) == 0


def test_runs_are_rounded_before_they_are_averaged() -> None:
    assert reward(completion("x", [True, False, False], [True, True, False])) == (0.3333 + 0.6667) / 2
    assert reward(completion("x")) == 0.5
