"""What `seal run` and `seal learn` send: the config with the command line's changes, and the records that it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealkit.config import RunConfig, load_config, parse_config
from sealkit.dataset import Records, dataset_reader, dataset_schemes, is_url, read_rows
from sealkit.domains.base import Domain, Published, load_domain
from sealkit.errors import InvalidConfig, InvalidDataset, UnknownDomain
from sealkit.learning import shipped_config
from sealkit.retention_tasks import retention_records


@dataclass(frozen=True)
class Recipe:
    """Everything that is needed to create a run."""

    config: RunConfig
    dataset: Records
    """The records, with the places they come from."""
    retention: list[dict[str, Any]]
    anchors: list[dict[str, Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records."""
        return self.dataset.records


@dataclass(frozen=True)
class LearningRecipe:
    """What is needed beside the documents to learn or to forget them."""

    config: dict[str, Any]
    """Only what is set."""
    retention: list[dict[str, Any]]
    anchors: list[dict[str, Any]]


def load_recipe(
    path: Path, *, dataset: str | None, limit: int | None, settings: Sequence[str], format: str = "auto"
) -> Recipe:
    """Reads the config at `path`, applies `settings` (`key=value`), reads the records, at most `dataset.limit` of them.

    Paths in the config are relative to its folder; `dataset` and its `format` come from the command line, and it is
    relative to the working directory. Raises InvalidConfig, InvalidDataset; Unavailable for a URL that does not answer.
    """
    raw = load_config(path).model_dump(mode="json", exclude_unset=True)
    table = raw.setdefault("dataset", {})
    if dataset is not None:
        is_file = dataset_reader(dataset) is None and not is_url(dataset)
        raw["dataset"] = {key: value for key, value in table.items() if key not in _OF_THE_SOURCE}
        raw["dataset"]["path"] = str(Path(dataset).resolve()) if is_file else dataset
    if format != "auto":
        raw["dataset"]["format"] = format
    for setting in settings:
        _apply(raw, setting)
    if limit is not None:
        raw["dataset"]["limit"] = limit
    config = parse_config(raw, source=str(path))
    if not config.dataset.path:
        raise InvalidDataset(f"{path} names no dataset; give one with --dataset FILE or dataset.path in the config")
    records = _records(config, path.parent if dataset is None else Path())
    used = records.first(config.dataset.limit or None)
    return Recipe(config, used, _retention(config, path.parent), _anchors(config, path.parent))


def learning_recipe(path: Path | None, settings: Sequence[str]) -> LearningRecipe:
    """The config at `path`, or the one that ships for learning documents, with `settings` (`key=value`) applied; the
    retention suite and the anchors that it names, relative to the config's folder or, without one, to the working
    directory. Raises InvalidConfig, InvalidDataset."""
    read = load_config(path) if path else parse_config(shipped_config(), source="sealkit/data/learn.toml")
    raw = read.model_dump(mode="json", exclude_unset=True)
    for setting in settings:
        _apply(raw, setting)
    config, folder = parse_config(raw), path.parent if path else Path()
    return LearningRecipe(raw, _retention(config, folder), _anchors(config, folder))


_OF_THE_SOURCE = ("options", "format", "encoding")
"""Keys of a config that belong to its dataset, not to one of the command line."""


def _records(config: RunConfig, folder: Path) -> Records:
    """The records of the config's dataset; paths are relative to `folder`."""
    wanted = config.dataset
    if read := dataset_reader(wanted.path):
        reader, where = read
        found = reader(where, folder=folder, options=wanted.options)
        return Records(found, [f"{wanted.path}, record {number}" for number in range(1, len(found) + 1)])
    if wanted.options:
        known = ", ".join(f"{scheme}:" for scheme in dataset_schemes())
        raise InvalidConfig(
            f"dataset.options: {wanted.path} is a file and has no options; sources with options begin with {known}"
        )
    rows, notices = read_rows(wanted.path, folder=folder, format=wanted.format, encoding=wanted.encoding)
    domain = _domain(config)
    return domain.records(rows, notices) if isinstance(domain, Published) else Records.of_rows(rows, notices)


def _domain(config: RunConfig) -> Domain | None:
    """The config's domain, if it is installed here too: the controller may have others."""
    try:
        return load_domain(config.domain.name)(config.domain.options, config.inner_loop)
    except UnknownDomain:
        return None


def _retention(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The retention suite that the config names; empty: the controller uses its own."""
    dataset = config.dataset
    records = _values(dataset.retention_path, folder) if dataset.retention_path else []
    for task in dataset.retention_tasks:
        records += retention_records(task, folder=folder, limit=dataset.retention_task_limit)
    return records


def _anchors(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The prompts of `dataset.anchors_path`, if the config needs them; empty: the controller uses its own."""
    if config.inner_loop.anchors.source != "file":
        return []
    if not config.dataset.anchors_path:
        raise InvalidConfig('inner_loop.anchors.source = "file" needs dataset.anchors_path')
    return _values(config.dataset.anchors_path, folder)


def _values(path: str, folder: Path) -> list[dict[str, Any]]:
    rows, _ = read_rows(path, folder=folder)
    return [row.values for row in rows]


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
