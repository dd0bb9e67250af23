"""What a call to learn or to forget documents sends: the config that ships, on one alias."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from sealkit.config import RunConfig
from sealkit.names import id_of


def shipped_config() -> dict[str, Any]:
    """The config for learning documents that ships with the package."""
    return tomllib.loads(resources.files("sealkit.data").joinpath("learn.toml").read_text(encoding="utf-8"))


def learn_config(
    alias: str, config: RunConfig | Mapping[str, Any] | None = None, *, forget: Sequence[str] = ()
) -> dict[str, Any]:
    """The config of a run that learns documents on `aliases/{alias}`, or makes it `forget` some, by name or digest.
    `config` replaces the one that ships, `sealkit/data/learn.toml`."""
    if isinstance(config, RunConfig):
        config = config.model_dump(mode="json", exclude_unset=True)
    if config is None:
        config = shipped_config()
    gate, adapt = dict(config.get("gate", {})), dict(config.get("adapt", {}))
    return {
        **config,
        "task": "adapt",
        "gate": {**gate, "alias": id_of(alias)},
        "adapt": {"commit": "consolidate", **adapt, "forget": list(forget)},
    }
