"""Tasks of lm-evaluation-harness as retention suites: a local task over a local file, no hub."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sealkit.errors import InvalidConfig, InvalidDataset, SealError
from sealkit.retention_tasks import records_of, retention_records

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason='needs lm-evaluation-harness, in an environment of its own: pip install -e ".[lm-eval,dev]"',
)

DOCS = [
    {"q": "What colour is grass?", "options": ["red", "green"], "label": 1},
    {"q": "How many legs has a spider?", "options": ["six", "eight"], "label": 1},
    {"q": "Is water wet: yes or no?", "options": ["yes", "no"], "label": 0},
]


class FakeTask:
    """As the harness's `ConfigurableTask`, as far as it is used."""

    def __init__(self, output_type: str, docs: list[dict[str, Any]] = DOCS, cue: str = "\nAnswer:") -> None:
        self.OUTPUT_TYPE = output_type
        self.eval_docs = docs
        self.cue = cue

    def doc_to_text(self, doc: Mapping[str, Any]) -> Any:
        return doc["q"] + self.cue if isinstance(doc["q"], str) else doc["q"]

    def doc_to_target(self, doc: Mapping[str, Any]) -> Any:
        return doc["label"] if self.OUTPUT_TYPE == "multiple_choice" else doc["options"]

    def doc_to_choice(self, doc: Mapping[str, Any]) -> list[str]:
        return list(doc["options"])


def test_a_multiple_choice_asks_with_its_choices_and_wants_the_right_ones_text() -> None:
    records = records_of("mine", FakeTask("multiple_choice"), 0)
    assert records[0] == {
        "id": "mine/0",
        "question": "What colour is grass?\nChoices: red; green\nAnswer:",
        "answer": "green",
    }
    assert records[2]["question"] == "Is water wet: yes or no?\nAnswer:"  # it lists them itself


def test_a_free_answer_is_any_that_the_task_takes() -> None:
    docs = [DOCS[0], DOCS[1] | {"options": ["eight", " ", "eight"]}]
    records = records_of("mine", FakeTask("generate_until", docs, cue=""), 2)
    assert [(r["question"], r["answer"]) for r in records] == [
        ("What colour is grass?", ["red", "green"]),
        ("How many legs has a spider?", "eight"),
    ]


def test_documents_without_question_or_answer_are_passed_over_and_keep_their_numbers() -> None:
    docs = [DOCS[0] | {"q": " "}, DOCS[1] | {"options": ["", ""]}, DOCS[1] | {"q": 1}, DOCS[0]]
    assert [r["id"] for r in records_of("mine", FakeTask("generate_until", docs, cue=""), 0)] == ["mine/3"]
    with pytest.raises(InvalidDataset, match="mine"):
        records_of("mine", FakeTask("generate_until", docs[:3], cue=""), 0)


def test_a_task_without_written_answers_is_refused() -> None:
    with pytest.raises(InvalidDataset, match="loglikelihood_rolling"):
        records_of("wikitext", FakeTask("loglikelihood_rolling"), 0)


def test_who_lacks_the_harness_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", None)
    with pytest.raises(InvalidConfig, match=r"pip install \"seal-suite\[lm-eval\]\""):
        retention_records("arc_easy", folder=tmp_path, limit=0)


@needs_harness
class TestHarness:
    @pytest.fixture(autouse=True)
    def _offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets.config

        monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(self, folder: Path, **changes: Any) -> str:
        (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCS)))
        task = {
            "task": "local_task",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{q}}\nAnswer:",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc"}],
        }
        (folder / "task.yaml").write_text(json.dumps(task | changes))  # JSON is YAML
        return "task.yaml"

    def test_a_local_task_over_a_local_file(self, tmp_path: Path) -> None:
        records = retention_records(self.write(tmp_path), folder=tmp_path, limit=2)
        assert [(r["id"], r["answer"]) for r in records] == [("local_task/0", "green"), ("local_task/1", "eight")]
        assert "red; green" in records[0]["question"]

    def test_one_of_free_answers(self, tmp_path: Path) -> None:
        free = {"output_type": "generate_until", "doc_to_target": "{{options[label]}}", "metric_list": []}
        records = retention_records(self.write(tmp_path, **free), folder=tmp_path, limit=0)
        assert [r["answer"] for r in records] == ["green", "eight", "yes"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"dataset_kwargs": {"data_files": {"test": "/nowhere.json"}}},
            {"dataset_path": "nobody/nothing", "dataset_kwargs": None},
            {"test_split": None},
            {"output_type": "loglikelihood"},
            {"task": None},
        ],
    )
    def test_what_cannot_be_had_is_a_typed_error(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        with pytest.raises(SealError, match="task"):
            retention_records(self.write(tmp_path, **changes), folder=tmp_path, limit=0)

    def test_a_file_that_is_not_there_or_no_task(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfig, match="does not exist"):
            retention_records("other.yaml", folder=tmp_path, limit=0)
        (tmp_path / "broken.yaml").write_text("a: [")
        with pytest.raises(InvalidConfig, match="broken"):
            retention_records("broken.yaml", folder=tmp_path, limit=0)

    def test_a_name_that_the_harness_does_not_know(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfig, match="no_such_task"):
            retention_records("no_such_task", folder=tmp_path, limit=0)
