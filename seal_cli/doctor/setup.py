"""The settings to check: from the services' environment variables, or of the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seal_cli.stack.layout import Layout
from sealkit.urls import socket_url, sqlite_url

MODEL_SERVICES = ("generator", "trainer", "evaluator")
_DEFAULTS = {
    "CONTROLLER_DATABASE_URL": "sqlite:///.seal/controller.db",
    "CONTROLLER_REDIS_URL": "redis://127.0.0.1:6379/0",
    "CONTROLLER_QUEUE": "seal:trials",
    "CONTROLLER_GENERATOR": "127.0.0.1:50051",
    "CONTROLLER_TRAINER": "127.0.0.1:50052",
    "CONTROLLER_EVALUATOR": "127.0.0.1:50053",
    "EVALUATOR_JUDGE_ANSWER_SECONDS": "60",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One check: what was checked, whether it is good, what was found, and how to fix it."""

    what: str
    good: bool
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Settings:
    """SEAL_* by name without the prefix."""

    values: Mapping[str, str]

    def get(self, name: str) -> str:
        """A setting, or else the services' own default, or else empty."""
        return self.values.get(name) or _DEFAULTS.get(name, "")

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses of the three model services, as the controller has them."""
        return {name: self.get(f"CONTROLLER_{name.upper()}") for name in MODEL_SERVICES}


def read_settings(data: Path) -> Settings:
    """The environment's settings; those that are not set come from the stack in `data`, if one was started."""
    values = {key.removeprefix("SEAL_"): value for key, value in os.environ.items() if key.startswith("SEAL_")}
    layout = Layout.at(data)
    state = layout.read_state()
    if state is None:
        return Settings(values)
    known = {
        "CONTROLLER_DATABASE_URL": sqlite_url(layout.database),
        "CONTROLLER_REDIS_URL": socket_url(layout.socket),
    }
    for record in state.services:
        if record.name in MODEL_SERVICES:
            known[f"CONTROLLER_{record.name.upper()}"] = record.address
            known[f"{record.name.upper()}_STORE_URL"] = str(layout.store)
            known[f"{record.name.upper()}_MODEL"] = state.model
    return Settings(known | values)
