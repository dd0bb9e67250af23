"""What the documents name is there: commands with their options, settings, metrics, keys of a config, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

from controller.settings import ControllerSettings
from evaluator_svc.settings import EvaluatorSettings
from gateway.settings import GatewaySettings
from generator_svc.settings import GeneratorSettings
from scripts import write_config_reference, write_variables
from seal_cli.main import app
from sealkit.config import RunConfig
from tests.deployment.test_observability import unknown
from trainer_svc.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
MAPS = [ROOT / package / "README.md" for package in ("controller", "trainer_svc", "evaluator_svc")]
TEXTS = ("*.md", "docs/**/*.md", "examples/*.md", "configs/**/*.toml")
PAGES = sorted([*MAPS, *(page for pattern in TEXTS for page in ROOT.glob(pattern))])
CHANGES = ROOT / "CHANGELOG.md"
PAGES.remove(CHANGES)  # it names what no longer exists
_FREE = ("domain.options", "dataset.options", "cost.editors")
"""Keys below these are a domain's, a source's, a name's."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def faulty(faults: Callable[[Path], Iterable[str]], pages: Iterable[Path] = PAGES) -> dict[str, list[str]]:
    """What is wrong on which page."""
    found = {str(page.relative_to(ROOT)): sorted(faults(page)) for page in pages}
    return {page: there for page, there in found.items() if there}


def keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield above + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{above}{name}.")


KEYS = set(keys(RunConfig))


def test_keys_of_a_config_are_there() -> None:
    sections = "|".join({key.partition(".")[0] for key in KEYS if "." in key})

    def unknown_keys(page: Path) -> set[str]:
        named = set(re.findall(rf"`((?:{sections})(?:\.\w+)+)", text_of(page)))
        return {name for name in named - KEYS if not name.startswith(_FREE) and not name.endswith(".py")}

    assert faulty(unknown_keys) == {}


def read_by(folders: tuple[str, ...]) -> set[str]:
    """Variables that code of ours names in full."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".sh", ".yml")]
    files += [ROOT / "docker-compose.yml", ROOT / "Makefile"]
    return {name for file in files for name in re.findall(r"\bSEAL_[A-Z_]*[A-Z]", text_of(file))}


def test_settings_are_there() -> None:
    settings = (ControllerSettings, TrainerSettings, GeneratorSettings, GatewaySettings, EvaluatorSettings)
    own = {f"{one.model_config.get('env_prefix')}{field}".upper() for one in settings for field in one.model_fields}
    variables = own | read_by(("seal_cli", "sealkit", "scripts", "deploy"))
    assert faulty(lambda page: set(re.findall(r"\bSEAL_[A-Z_]*[A-Z]\b", text_of(page))) - variables) == {}


def test_metrics_are_there() -> None:
    assert faulty(lambda page: unknown(re.sub(r"seal_(cli|suite)\w*", "", text_of(page)))) == {}


def commands(page: Path) -> Iterator[str]:
    """Those in the text and in blocks; what is only mentioned (`seal trials`), or stands for several, is left out."""
    text = text_of(page)
    yield from re.findall(r"^ *(seal [a-z].*)$", text, re.MULTILINE)
    yield from (line for line in re.findall(r"`(seal [a-z][^`\n]*)`", text) if len(line.split()) > 2)


def refused(line: str, command: Any) -> str:
    """The word or option of a line that the command does not know; empty where it knows all."""
    words = shlex.split(line.partition("#")[0])[1:]
    while hasattr(command, "commands"):
        word = words.pop(0) if words else ""
        if word not in command.commands:
            return word or "nothing after it"
        command = command.commands[word]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return " ".join({word.partition("=")[0] for word in words if word.startswith("--")} - options)


def test_commands_have_these_words_and_options() -> None:
    seal = typer.main.get_command(app)

    def faults(page: Path) -> Iterator[str]:
        for line in commands(page):
            if "…" not in line and "|" not in line and (word := refused(line, seal)):
                yield f"{line}: {word}"

    assert faulty(faults) == {}


def test_links_lead_to_files_and_headings() -> None:
    def headings(page: Path) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    def faults(page: Path) -> Iterator[str]:
        for place, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text_of(page)):
            target = page.parent / place if place else page
            if "://" not in place and (not target.exists() or (heading and heading not in headings(target))):
                yield f"{place}#{heading}"

    assert faulty(faults, [*PAGES, CHANGES]) == {}


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / place).resolve()
        for page in PAGES
        for place in re.findall(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)", text_of(page))
        if (page.parent / place).resolve() != page
    }
    assert set(PAGES) - linked - {ROOT / "README.md"} - set(ROOT.glob("configs/**/*")) == set()


def test_every_key_of_a_config_is_explained_and_the_reference_is_current() -> None:
    assert write_config_reference.main(["--check"]) == 0
    assert write_variables.main(["--check"]) == 0
    assert "|  |" not in write_config_reference.TARGET.read_text(), "a key without a word on it"


def test_the_tests_of_the_field_cases_are_there() -> None:
    page = text_of(ROOT / "docs/results/field_cases.md")
    files = [*(ROOT / "tests").rglob("test_*.py")]
    there = {file.stem for file in files}
    for file in files:
        there |= set(re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8")))
    assert set(re.findall(r"\btest_\w+", page)) - there == set()
