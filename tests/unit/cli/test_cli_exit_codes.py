"""The exit codes: the page, every command, and what interrupts one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from click.testing import CliRunner

from seal_cli.commands import run as run_command
from seal_cli.exit_codes import ANSWERS, MEANINGS, RUN_ENDED, ExitCode, code_of
from seal_cli.interrupts import Interrupted
from seal_cli.main import app
from sealkit.errors import FailedPrecondition, InvalidDataset, Unavailable, UnknownRun
from sealkit.resources import RunState

ROOT = Path(__file__).parents[3]
WITHOUT_A_STACK: dict[str, ExitCode] = {
    "up --model ./nothing": ExitCode.BAD_INPUT,
    "up --port 70000": ExitCode.BAD_INPUT,
    "down": ExitCode.DONE,
    "status": ExitCode.FAILED,
    "open": ExitCode.FAILED,
    "run missing.toml": ExitCode.BAD_INPUT,
    "run good.toml": ExitCode.FAILED,
    "run good.toml --set nothing=1": ExitCode.BAD_INPUT,
    "adapt good.toml": ExitCode.FAILED,
    "runs list": ExitCode.FAILED,
    "runs get r": ExitCode.FAILED,
    "runs watch r": ExitCode.FAILED,
    "runs cancel r": ExitCode.FAILED,
    "runs pause r": ExitCode.FAILED,
    "runs resume r": ExitCode.FAILED,
    "runs report r": ExitCode.FAILED,
    "report r": ExitCode.FAILED,
    "report r --json --open": ExitCode.BAD_INPUT,
    "runs cost r": ExitCode.FAILED,
    "trials list r": ExitCode.FAILED,
    "trials retry r": ExitCode.FAILED,
    "trials get r": ExitCode.FAILED,
    "trials rerun r": ExitCode.FAILED,
    "policies list": ExitCode.FAILED,
    "policies show p": ExitCode.FAILED,
    "policies get p": ExitCode.FAILED,
    "alias set a p": ExitCode.FAILED,
    "alias rollback a": ExitCode.FAILED,
    "alias diff a policies/p": ExitCode.FAILED,
    "alias forget a report.pdf": ExitCode.FAILED,
    "alias export a folder": ExitCode.FAILED,
    "learn missing.txt --alias a": ExitCode.BAD_INPUT,
    "alias show a": ExitCode.FAILED,
    "alias list": ExitCode.FAILED,
    "adapters list": ExitCode.DONE,
    "adapters verify": ExitCode.DONE,
    f"adapters verify {'0' * 64}": ExitCode.BAD_INPUT,
    "adapters gc": ExitCode.FAILED,
    "adapters gc --grace soon": ExitCode.BAD_INPUT,
    "arc filter missing.toml": ExitCode.BAD_INPUT,
    "arc solved r": ExitCode.FAILED,
    "ask a Which?": ExitCode.FAILED,
    "audit list": ExitCode.FAILED,
    "certs make tls": ExitCode.DONE,
    "certs token token": ExitCode.DONE,
    "certs token good.toml": ExitCode.BAD_INPUT,
    "judge calibrate --verdicts missing.jsonl": ExitCode.BAD_INPUT,
    "health 127.0.0.1:1 --timeout 0.1": ExitCode.FAILED,
    "doctor --config missing.toml": ExitCode.BAD_INPUT,
    "services": ExitCode.FAILED,
    "whoami": ExitCode.FAILED,
}
"""In a folder with a good config and nothing else. `fetch` needs a network."""


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*words, name))


SEAL = typer.main.get_command(app)
COMMANDS = dict(sorted(leaves(SEAL)))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith("SEAL_")]:
        monkeypatch.delenv(name)
    (tmp_path / "passages.json").write_text(
        '[{"title": "T", "context": "A lake is deep.", "questions": [{"question": "How?", "answer": "deep"}]}]'
    )
    (tmp_path / "good.toml").write_text('name = "good"\n[dataset]\npath = "passages.json"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_code(words: str) -> int:
    return CliRunner().invoke(SEAL, words.split()).exit_code


def test_the_page_is_that_of_the_code() -> None:
    page = (ROOT / "docs/exit_codes.md").read_text()
    assert dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)) == {
        str(int(code)): meaning for code, meaning in MEANINGS.items()
    }
    assert dict(re.findall(r"^\| `seal ([\w ]+)` \| (.*) \|$", page, re.MULTILINE)) == ANSWERS
    assert set(MEANINGS) == set(ExitCode)
    assert set(COMMANDS) >= set(ANSWERS)
    following = {path for path, one in COMMANDS.items() if any(option.name == "follow" for option in one.params)}
    assert {ANSWERS.get(path) for path in following} == {RUN_ENDED}


def test_every_command_ends_with_the_code_of_the_page() -> None:
    named = {next((c for c in COMMANDS if f"{words} ".startswith(f"{c} ")), words) for words in WITHOUT_A_STACK}
    assert named == set(COMMANDS) - {"fetch"}, "a new command needs a line here"
    found = {words: exit_code(words) for words in WITHOUT_A_STACK}
    assert found == WITHOUT_A_STACK
    assert {c: exit_code(f"{c} --no-such-option") for c in COMMANDS} == dict.fromkeys(COMMANDS, ExitCode.BAD_INPUT)
    assert {c: exit_code(f"{c} --help") for c in COMMANDS} == dict.fromkeys(COMMANDS, ExitCode.DONE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidDataset("no text"), 2),
        (UnknownRun("no run"), 2),
        (Unavailable("no answer"), 1),
        (FailedPrecondition("not now"), 1),
        (KeyboardInterrupt(), 130),
        (Interrupted(signal.SIGTERM), 143),
        (Interrupted(signal.SIGHUP), 129),
    ],
    ids=repr,
)
def test_an_error_has_one_code_in_every_command(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    assert code_of(error) == code
    monkeypatch.setattr("seal_cli.options.embedded_address", fails)
    assert exit_code("runs list") == code


class Ended:
    """A client of a run that has ended in a state."""

    def __init__(self, state: RunState, *, interrupted: BaseException | None = None) -> None:
        self.name, self.state, self.error, self.interrupted = "runs/r", state, None, interrupted
        self.cancelled: list[str] = []

    def watch_run(self, _: str, **__: Any) -> Iterator[None]:
        if self.interrupted:
            raise self.interrupted
        return iter(())

    def get_run_pace(self, _: str) -> None: ...

    def get_run(self, _: str) -> Ended:
        return self

    def report(self, _: str) -> None: ...

    def cancel_run(self, name: str) -> None:
        self.cancelled.append(name)


def test_a_followed_run_answers_by_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seal_cli.report.print_report", lambda *_: None)
    codes = {}
    for state in (RunState.SUCCEEDED, RunState.FAILED, RunState.PAUSED, RunState.CANCELLED):
        try:
            run_command.follow_to_end(Ended(state), "runs/r", None)  # type: ignore[arg-type]
            codes[state.value] = 0
        except typer.Exit as left:
            codes[state.value] = left.exit_code
    assert codes == {"succeeded": 0, "failed": 1, "paused": 1, "cancelled": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(signal.SIGTERM), Interrupted(signal.SIGHUP)])
def test_an_interrupted_run_is_cancelled_or_said_to_continue(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    for cancel in (True, False):
        client: Any = Ended(RunState.RUNNING, interrupted=error)
        with pytest.raises(type(error)):
            run_command.follow_to_end(client, "runs/r", None, cancel_on_interrupt=cancel)
        assert client.cancelled == (["runs/r"] if cancel else [])
        assert ("is cancelled" if cancel else "continues in the background") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_ends_a_command_that_waits(number: signal.Signals, code: int, folder: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        call = "from seal_cli.main import main; main()"
        waiting = subprocess.Popen(
            [sys.executable, "-c", call, "health", address, "--timeout", "60"], stderr=subprocess.PIPE, cwd=ROOT
        )
        silent.settimeout(30)
        with silent.accept()[0]:  # closed, it would not be waited for
            waiting.send_signal(number)
            said = waiting.communicate(timeout=30)[1]
    assert (waiting.returncode, said) == (code, b"")
