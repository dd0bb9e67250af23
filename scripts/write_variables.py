"""Writes sealkit/data/variables.txt, every environment variable SEAL_* that a process or a script reads:
`python -m scripts.write_variables [--check]`; with --check it only reports whether it differs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from controller.settings import ControllerSettings
from deploy.generated import settle
from evaluator_svc.settings import EvaluatorSettings
from gateway.settings import GatewaySettings
from generator_svc.settings import GeneratorSettings
from sealkit.observability.start import TracingSettings
from trainer_svc.settings import TrainerSettings

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "sealkit/data/variables.txt"
_SETTINGS: tuple[type[BaseSettings], ...] = (
    ControllerSettings, GeneratorSettings, TrainerSettings, EvaluatorSettings, GatewaySettings,
    TracingSettings,
)  # fmt: skip
_READ_BY = ("seal_cli/*.py", "seal_cli/*/*.py", "scripts/*", "docker-compose.yml", "deploy/docker/*", "Makefile")
"""Files in which variables are read by their whole names."""
_COMMAND_LINE = ("SEAL_TLS_CA", "SEAL_TLS_CERT", "SEAL_TLS_KEY")
"""Read in `seal_cli.options` with a computed name."""


def render() -> str:
    """The file: a name a line, sorted."""
    names = {name for settings in _SETTINGS for name in _names(settings, settings.model_config.get("env_prefix", ""))}
    for pattern in _READ_BY:
        for file in ROOT.glob(pattern):
            if file.is_file() and file != Path(__file__):
                names.update(re.findall(r"\bSEAL_[A-Z0-9_]*[A-Z0-9]\b(?![_{*])", file.read_text(encoding="utf-8")))
    return "".join(f"{name}\n" for name in sorted(names | set(_COMMAND_LINE)))


def _names(settings: type[BaseModel], prefix: str) -> Iterator[str]:
    for field, about in settings.model_fields.items():
        inner = about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _names(inner, f"{prefix}{field.upper()}__")
        yield f"{prefix}{field}".upper()


def main(arguments: list[str]) -> int:
    """Writes the file, or with `--check` reports whether it is up to date; returns the exit code."""
    return settle({TARGET: render()}, arguments, command="python -m scripts.write_variables")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
