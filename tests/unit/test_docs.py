"""What the documents name is there: commands with their options, settings, metrics, keys of a config, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from controller.settings import ControllerSettings
from evaluator_svc.settings import EvaluatorSettings
from generator_svc.settings import GeneratorSettings
from seal_cli.main import app
from sealkit.config import RunConfig
from tests.unit.test_observability import unknown
from trainer_svc.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.toml")])
PAGES.remove(ROOT / "CHANGELOG.md")  # it tells of what is gone
_FREE = ("domain.options", "dataset.options", "cost.editors")
"""Keys below these are a domain's, a source's, a name's."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield above + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{above}{name}.")


KEYS = set(keys(RunConfig))


@each_page
def test_keys_of_a_config_are_there(page: Path) -> None:
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    named = set(re.findall(rf"`((?:{'|'.join(sections)})(?:\.\w+)+)", text_of(page)))
    assert {name for name in named - KEYS if not name.startswith(_FREE)} == set()


def read_by(folders: tuple[str, ...]) -> set[str]:
    """Variables that code of ours names in full."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".sh", ".yml")]
    files += [ROOT / "docker-compose.yml", ROOT / "Makefile"]
    return {name for file in files for name in re.findall(r"\bSEAL_[A-Z_]*[A-Z]", text_of(file))}


@pytest.fixture(scope="module")
def variables() -> set[str]:
    settings = (ControllerSettings, TrainerSettings, GeneratorSettings, EvaluatorSettings)
    own = {f"{one.model_config.get('env_prefix')}{field}".upper() for one in settings for field in one.model_fields}
    return own | read_by(("seal_cli", "sealkit", "scripts", "deploy"))


@each_page
def test_settings_are_there(page: Path, variables: set[str]) -> None:
    assert set(re.findall(r"\bSEAL_[A-Z_]*[A-Z]\b", text_of(page))) - variables == set()


@each_page
def test_metrics_are_there(page: Path) -> None:
    assert unknown(re.sub(r"seal_(cli|suite)\w*", "", text_of(page))) == set()


def commands(page: Path) -> Iterator[str]:
    """Those in the text and in blocks; what is only mentioned (`seal trials`), or stands for several, is left out."""
    text = text_of(page)
    yield from re.findall(r"^ *(seal [a-z].*)$", text, re.MULTILINE)
    yield from (line for line in re.findall(r"`(seal [a-z][^`\n]*)`", text) if len(line.split()) > 2)


@each_page
def test_commands_have_these_words_and_options(page: Path) -> None:
    top: Any = typer.main.get_command(app)
    for line in commands(page):
        command, words = top, shlex.split(line.partition("#")[0])[1:]
        if "…" in line or "|" in line:
            continue
        while hasattr(command, "commands"):
            word = words.pop(0) if words else ""
            assert word in command.commands, line
            command = command.commands[word]
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


@each_page
def test_links_lead_to_headings(page: Path) -> None:
    for place, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text_of(page)):
        target = (page.parent / place).resolve() if place else page
        there = {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text_of(target), re.MULTILINE)
        }
        assert heading in there, f"{place}#{heading}"
