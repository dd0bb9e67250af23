"""The config of a run as another version may have stored it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from sealkit.config import RunConfig
from sealkit.errors import ConfigOutdated

_RENAMED_KEYS = {
    ("evaluation", "race_confidence"): "early_stopping_confidence",
    ("evaluation", "race_wave"): "early_stopping_interval",
}
_RENAMED_VALUES = {("adapt", "commit"): {"stack": "join"}}


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config read from the database, possibly stored by another version.

    Attributes:
        config: The config; a key that is new, or whose stored value is no longer valid, has its default.
        dropped: Stored keys that this version does not have.
        invalid: Stored keys whose value this version does not accept.
    """

    config: RunConfig
    dropped: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()

    @property
    def unread(self) -> tuple[str, ...]:
        """All stored keys that `config` ignores. Empty: `config` is the one that the run was created with."""
        return (*self.dropped, *self.invalid)

    def in_full(self, run: str) -> RunConfig:
        """The config, for a run that continues. Raises ConfigOutdated if `config` ignores stored keys."""
        if not self.unread:
            return self.config
        raise ConfigOutdated(
            f"another version stored the config of {run}, and this version cannot read {', '.join(self.unread)}: the "
            "run would continue with other settings. It can be shown and reported; to continue, start a new run from "
            "its last policy (start_policy), or use the version that stored it",
            metadata={"run": run, "keys": ",".join(self.unread)},
        )


def read_stored_config(stored: Mapping[str, Any]) -> StoredConfig:
    """The config of a stored run, whichever version stored it. Never raises: it lists the keys that it cannot read."""
    left = _with_new_names(stored)
    found: dict[str, bool] = {}  # by key: whether this version has it
    while True:
        try:
            config = RunConfig.model_validate(left)
        except ValidationError as error:
            cut = {_cut(left, e["loc"]): e["type"] != "extra_forbidden" for e in error.errors()}
            if cut.keys() <= found.keys():  # the same fault again: removing the key did not help
                return StoredConfig(RunConfig(), invalid=("config",))
            found |= cut
        else:
            dropped, invalid = (tuple(key for key, known in found.items() if known is which) for which in (False, True))
            return StoredConfig(config, dropped, invalid)


def _with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the current names of renamed keys and values."""
    config = deepcopy(dict(stored))
    for (section, old), new in _RENAMED_KEYS.items():
        values = _section(config, section)
        if old in values:
            values.setdefault(new, values.pop(old))
    for (section, key), names in _RENAMED_VALUES.items():
        values = _section(config, section)
        if isinstance(value := values.get(key), str):
            values[key] = names.get(value, value)
    return config


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _cut(config: dict[str, Any], loc: tuple[int | str, ...]) -> str:
    """Removes the key at `loc` (for an item of a list, the whole list) from `config`; returns the dotted key."""
    path = [str(part) for part in takewhile(lambda part: isinstance(part, str), loc)]
    section = config
    for depth, name in enumerate(path, start=1):
        inner = section.get(name)
        if depth == len(path) or not isinstance(inner, dict):
            section.pop(name, None)
            return ".".join(path[:depth])
        section = inner
    return "config"
