"""What `seal run` sends: the config with what the command line changes in it, and the records it names."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealkit.config import RunConfig, load_config, parse_config
from sealkit.dataset import dataset_reader, dataset_schemes
from sealkit.errors import InvalidConfig, InvalidDataset
from sealkit.retention_tasks import retention_records


@dataclass(frozen=True)
class Recipe:
    """A run that is ready to be created."""

    config: RunConfig
    dataset: str
    """Where the records came from."""
    records: list[dict[str, Any]]
    retention: list[dict[str, Any]]
    anchors: list[dict[str, Any]]


def load_recipe(path: Path, *, dataset: Path | None, limit: int | None, settings: Sequence[str]) -> Recipe:
    """Reads the config at `path`, applies `settings` (`key=value`), reads the records.

    Paths in the config are relative to its folder; `dataset` comes from the command line and is relative to where that
    was given. Raises InvalidConfig, InvalidDataset.
    """
    raw = load_config(path).model_dump(mode="json", exclude_unset=True)
    if dataset is not None:
        is_file = dataset_reader(str(dataset)) is None
        raw.setdefault("dataset", {}).pop("options", None)  # they belong to the source that is not read now
        raw["dataset"]["path"] = str(dataset.resolve() if is_file else dataset)
    for setting in settings:
        _apply(raw, setting)
    if limit is not None:
        raw.setdefault("dataset", {})["limit"] = limit
    config = parse_config(raw, source=str(path))
    if not config.dataset.path:
        raise InvalidDataset(f"{path} names no dataset; give one with --dataset FILE, or as dataset.path in the config")
    records = _records(config, path.parent if dataset is None else Path())
    return Recipe(config, config.dataset.path, records, _retention(config, path.parent), _anchors(config, path.parent))


def _records(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """What the config's dataset holds, paths being relative to `folder`."""
    path, options = config.dataset.path, config.dataset.options
    if read := dataset_reader(path):
        reader, where = read
        return reader(where, folder=folder, options=options)
    if options:
        known = ", ".join(f"{scheme}:" for scheme in dataset_schemes())
        raise InvalidConfig(f"dataset.options: {path} is a file and has none; sources with options begin with {known}")
    return read_records(folder / path)


def _retention(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The retention suite that the config names; empty: the controller takes its own."""
    dataset = config.dataset
    records = read_records(folder / dataset.retention_path) if dataset.retention_path else []
    for task in dataset.retention_tasks:
        records += retention_records(task, folder=folder, limit=dataset.retention_task_limit)
    return records


def _anchors(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The prompts of `dataset.anchors_path`, where the config wants them; else the controller has its own."""
    if config.inner_loop.anchors.source != "file":
        return []
    if not config.dataset.anchors_path:
        raise InvalidConfig('inner_loop.anchors.source = "file" wants dataset.anchors_path')
    return read_records(folder / config.dataset.anchors_path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON list or a JSONL file (told apart by the first character).

    What a record must hold is the domain's business and is checked by the controller. Raises InvalidDataset.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidDataset(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InvalidDataset(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        records = _read_list(path, text) if text.lstrip().startswith("[") else _read_lines(path, text)
    except RecursionError as error:
        raise InvalidDataset(f"{path}: nested too deeply to be a list of records") from error
    if not records:
        raise InvalidDataset(f"{path}: empty; a JSON list of records, or one record a line, is wanted")
    for number, record in records:
        if not isinstance(record, dict):
            raise InvalidDataset(
                f"{path}: {number} is no record but {type(record).__name__}; a JSON object is wanted, with title, "
                "context and questions for the knowledge domain"
            )
    return [record for _, record in records]


def _read_list(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        return [(f"entry {number}", entry) for number, entry in enumerate(json.loads(text), start=1)]
    except json.JSONDecodeError as error:
        raise InvalidDataset(f"{path}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error


def _read_lines(path: Path, text: str) -> list[tuple[str, Any]]:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append((f"line {number}", json.loads(line)))
        except json.JSONDecodeError as error:
            raise InvalidDataset(
                f"{path}: line {number} is not JSON (column {error.colno}: {error.msg}); "
                "a JSON list, or one JSON object a line, is wanted"
            ) from error
    return records


def _apply(raw: dict[str, Any], setting: str) -> None:
    """Sets one `a.b=value` in nested tables; the value is TOML, or else a plain string."""
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise InvalidConfig(f"--set {setting}: key=value is wanted, as in --set editor.k=3")
    *tables, last = key.strip().split(".")
    table = raw
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise InvalidConfig(f"--set {setting}: {name} is a value, not a table", fields=((key, "not a table"),))
        table = inner
    table[last] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        parsed: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"]
