"""What the README says can be done: light checks here, its blocks themselves in tests/e2e."""

import shlex
import subprocess

import pytest
import typer.main

from seal_cli.main import app
from tests.e2e.readme import ROOT, blocks, commands


@pytest.mark.parametrize("line", [c for c in commands() if c.startswith("make ")])
def test_make_knows_the_target(line: str) -> None:
    done = subprocess.run(["make", "--dry-run", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [c for c in commands() if c.startswith("seal ")])
def test_seal_takes_the_words(line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("seal", words).close()


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    known = ("make ", "seal ", "source .venv/bin/activate", "docker compose --profile cpu ")
    assert [line for line in commands() if not line.startswith(known)] == []


def test_make_help_lists_few_targets() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert 0 < len(shown) < 20
    assert all(len(line.split(maxsplit=2)) == 3 for line in shown), "a name and what it does"


def test_the_python_block_is_short() -> None:
    (block,) = blocks("python")
    compile(block, "README.md", "exec")
    assert len([line for line in block.splitlines() if line and "import" not in line]) <= 10
