"""What `seal run` sends: the config with the command line's changes, and the records of its dataset."""

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
    """Everything that is needed to create a run."""

    config: RunConfig
    dataset: str
    """Path or URL of the records."""
    records: list[dict[str, Any]]
    """At most `dataset.limit` of them."""
    retention: list[dict[str, Any]]
    anchors: list[dict[str, Any]]


def load_recipe(path: Path, *, dataset: Path | None, limit: int | None, settings: Sequence[str]) -> Recipe:
    """Reads the config at `path`, applies `settings` (`key=value`), reads the records.

    Paths in the config are relative to its folder; `dataset` comes from the command line and is relative to the working
    directory. Raises InvalidConfig, InvalidDataset.
    """
    raw = load_config(path).model_dump(mode="json", exclude_unset=True)
    if dataset is not None:
        is_file = dataset_reader(str(dataset)) is None
        raw.setdefault("dataset", {}).pop("options", None)  # they belong to the replaced source
        raw["dataset"]["path"] = str(dataset.resolve() if is_file else dataset)
    for setting in settings:
        _apply(raw, setting)
    if limit is not None:
        raw.setdefault("dataset", {})["limit"] = limit
    config = parse_config(raw, source=str(path))
    if not config.dataset.path:
        raise InvalidDataset(f"{path} names no dataset; give one with --dataset FILE or dataset.path in the config")
    records = _records(config, path.parent if dataset is None else Path())[: config.dataset.limit or None]
    return Recipe(config, config.dataset.path, records, _retention(config, path.parent), _anchors(config, path.parent))


def _records(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The records of the config's dataset; paths are relative to `folder`."""
    path, options = config.dataset.path, config.dataset.options
    if read := dataset_reader(path):
        reader, where = read
        return reader(where, folder=folder, options=options)
    if options:
        known = ", ".join(f"{scheme}:" for scheme in dataset_schemes())
        raise InvalidConfig(
            f"dataset.options: {path} is a file and has no options; sources with options begin with {known}"
        )
    return read_records(folder / path)


def _retention(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The retention suite that the config names; empty: the controller uses its own."""
    dataset = config.dataset
    records = read_records(folder / dataset.retention_path) if dataset.retention_path else []
    for task in dataset.retention_tasks:
        records += retention_records(task, folder=folder, limit=dataset.retention_task_limit)
    return records


def _anchors(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The prompts of `dataset.anchors_path`, if the config needs them; empty: the controller uses its own."""
    if config.inner_loop.anchors.source != "file":
        return []
    if not config.dataset.anchors_path:
        raise InvalidConfig('inner_loop.anchors.source = "file" needs dataset.anchors_path')
    return read_records(folder / config.dataset.anchors_path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON list or a JSONL file (distinguished by the first character).

    The fields of a record depend on the domain; the controller checks them. Raises InvalidDataset.
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
        raise InvalidDataset(f"{path}: empty; expected a JSON list of records, or one record per line")
    for number, record in records:
        if not isinstance(record, dict):
            raise InvalidDataset(
                f"{path}: {number} is a {type(record).__name__}, not a record; expected a JSON object, for the "
                "knowledge domain with title, context and questions"
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
                "expected a JSON list, or one JSON object per line"
            ) from error
    return records


def _apply(raw: dict[str, Any], setting: str) -> None:
    """Sets one `a.b=value` in nested tables; the value is parsed as TOML, or else taken as a string."""
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise InvalidConfig(f"--set {setting}: expected key=value, as in --set editor.k=3")
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
