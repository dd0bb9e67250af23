"""`--help`: examples that are right, and the exit codes."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from seal_cli.examples import EXAMPLES
from seal_cli.exit_codes import MEANINGS, ExitCode
from seal_cli.main import app


def paths(command: Any, above: str = "") -> set[str]:
    below = getattr(command, "commands", {})
    return {above} | {path for name, one in below.items() for path in paths(one, f"{above} {name}".strip())}


def test_every_command_has_examples_and_no_example_is_of_another() -> None:
    assert set(EXAMPLES) == paths(get_command(app))
    assert [path for path, examples in EXAMPLES.items() if not examples] == []
    mixed = {
        path: example
        for path, examples in EXAMPLES.items()
        for example in examples
        if path and f" {path}" not in example
    }
    assert mixed == {}


def commands_of(example: str) -> Iterator[list[str]]:
    """The words after each `seal` of a line of shell."""
    for is_end, words in itertools.groupby(shlex.split(example), lambda word: word in ("|", "&&")):
        if not is_end and (command := list(words))[0] == "seal":
            yield command[1:]


def test_every_example_is_understood() -> None:
    """Its command, options and number of arguments exist."""
    root, faults = get_command(app), {}
    for example in itertools.chain.from_iterable(EXAMPLES.values()):
        for words in commands_of(example):
            command: Any = root
            if words[0] == "--tenant":
                del words[:2]
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
            try:
                command.make_context("seal", words)
            except Exception as error:  # noqa: BLE001 - every one is a fault of the example
                faults[example] = repr(error)
    assert faults == {}


@pytest.mark.parametrize("words", [[], ["run"], ["trials", "rerun"], ["certs"]])
def test_help_ends_with_examples_and_exit_codes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, [*words, "--help"]).output
    for example in EXAMPLES[" ".join(words)]:
        assert f"  {example} " in shown
    for code in (ExitCode.DONE, ExitCode.BAD_INPUT):
        assert f"  {code.value}  {MEANINGS[code]}" in shown
    assert "docs/exit_codes.md" in shown
