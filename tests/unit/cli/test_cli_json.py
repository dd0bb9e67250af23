"""`--json`: every command that shows something has it, and prints JSON and nothing else on stdout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from seal_cli import console
from seal_cli.main import app
from sealkit.answers import Answer
from sealkit.reports import Rerun, RunEstimate, RunReport, TrialMaterial
from sealkit.resources import (
    Alias,
    AliasChange,
    AnswerBegun,
    AuditEntry,
    CallerInfo,
    Event,
    Load,
    PolicyVersion,
    ReplicaState,
    Run,
    RunLoad,
    RunProgress,
    RunState,
    RunStateChanged,
    ServiceReplica,
    Trial,
    TrialPhase,
    TrialState,
)
from sealkit.types import AnswerDelta, AnswerEnd, FinishReason, TrainingExample, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "näme \x1b[31m\u202e"
RUN = Run(name="runs/r", display_name=NAME, state=RunState.SUCCEEDED, config={"rounds": 1}, create_time=NOW)
TRIAL = Trial(
    round=0, name="runs/r/rounds/0/trials/c-0", state=TrialState.SUCCEEDED, phase=TrialPhase.E_STEP, context_id=NAME,
    editor="oracle", index=0, policy="policies/r-0", accuracy=1.0, create_time=NOW,
)  # fmt: skip
MATERIAL = TrialMaterial(examples=(TrainingExample(text=NAME),), examples_total=1)
POLICY = PolicyVersion(name="policies/r-1", run="runs/r", version=1, create_time=NOW)
ALIAS = Alias(name="aliases/a", policy="policies/r-1", history=(AliasChange(policy="policies/r-1", time=NOW),))
ENTRY = AuditEntry(
    name="auditEntries/7", time=NOW, caller=NAME, role="operator", tenant="t", action="CancelRun", resource="runs/r",
    request_id="q", outcome="OK",
)  # fmt: skip
ANSWER = Answer(
    begun=AnswerBegun(alias="aliases/a", policy=NAME), text=NAME, end=AnswerEnd(finish_reason=FinishReason.STOP)
)
EVENT = Event(
    cursor="1", time=NOW, progress=RunProgress(rounds_total=1), kind=RunStateChanged(state=RunState.SUCCEEDED)
)
LOAD = Load(
    replicas=(ServiceReplica(service="trainer", address="h:2", state=ReplicaState.SERVING),),
    runs=(RunLoad(run="runs/r", display_name=NAME, state=RunState.RUNNING),),
)
REPORT = RunReport(
    rows=(), kept=1, trial_counts={}, trial_forgetting=None, policies=(), stage_seconds={}, rl_gain=None, usage=Usage(),
    wall_seconds=1.0, verdict=f"{NAME} helped",
)  # fmt: skip


class FakeClient:
    """Answers every call with a value that would break a terminal."""

    address = "h:1"

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, call: str) -> Any:
        answers: dict[str, Any] = {
            "list_runs": [RUN], "list_trials": [TRIAL], "list_policies": [POLICY], "list_aliases": [ALIAS],
            "list_audit_entries": [ENTRY], "watch_run": [EVENT], "get_policy": POLICY, "get_alias": ALIAS,
            "get_run_pace": None, "set_alias": ALIAS, "roll_back_alias": ALIAS, "get_trial": TRIAL,
            "get_trial_material": MATERIAL, "rerun_trial": TRIAL, "report": REPORT,
            "wait_rerun": Rerun(trial=TRIAL, original=TRIAL.name), "retry_trials": (RUN, 1),
            "whoami": CallerInfo(name="me", role="admin"), "get_load": LOAD,
            "answer": ANSWER, "stream_answer": [ANSWER.begun, AnswerDelta(text=NAME), ANSWER.end],
            "estimate_run": RunEstimate(trials=1, usage=Usage(), wall_seconds=1, based_on=1, basis="b"),
        }  # fmt: skip
        answer = answers.get(call, RUN)
        return lambda *_, **__: iter(answer) if isinstance(answer, list) else answer


COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (), "down": (), "run": ("run.toml",), "adapt": ("run.toml",), "runs list": (), "runs get": ("r",),
    "runs watch": ("r",), "runs cancel": ("r",), "runs pause": ("r",), "runs resume": ("r",), "runs report": ("r",),
    "report": ("r",),
    "runs cost": ("r",), "trials list": ("r",), "trials get": (TRIAL.name,), "trials retry": ("r",),
    "trials rerun": (TRIAL.name,), "policies list": (), "policies show": ("r-1",), "policies get": ("r-1",),
    "alias set": ("a", "r-1"), "alias show": ("a",), "alias list": (), "alias rollback": ("a",),
    "adapters list": (), "adapters verify": (), "adapters gc": (), "arc filter": ("run.toml",), "arc solved": ("r",),
    "ask": ("a", "Which river?"), "audit list": (), "certs make": ("tls", "--name", "me"), "certs token": ("token",),
    "whoami": (), "services": (),
    "health": ("127.0.0.1:1",), "judge calibrate": ("--verdicts", "verdicts.jsonl", "--judge", "exact"),
    "doctor": (), "up": (), "open": (), "fetch": (), "learn": (), "alias diff": (), "alias forget": (),
    "alias export": (),
}  # fmt: skip
NEED_MORE = {"doctor", "up", "open", "fetch", "learn", "alias diff", "alias forget", "alias export"}
"""Run by other tests, because they start or ask other processes."""


def leaves(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        yield from leaves(command, path) if hasattr(command, "commands") else [(path, command)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SEAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text('rounds = 1\n[dataset]\npath = "data.jsonl"\n')
    record = {"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(record))
    (tmp_path / "verdicts.jsonl").write_text('{"question": "q", "gold": "g", "answer": "g", "verdict": true}\n')
    changed = "adapt adapters alias arc ask audit policies report run runs services trials whoami"
    for module in changed.split():
        if hasattr(sys.modules[f"seal_cli.commands.{module}"], "connect"):
            monkeypatch.setattr(f"seal_cli.commands.{module}.connect", lambda *_: FakeClient())
    return tmp_path


def test_every_command_has_it_and_prints_nothing_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1"), ("CLICOLOR_FORCE", "1"), ("COLUMNS", "20")):
        monkeypatch.setenv(name, value)
    assert {path for path, _ in leaves(get_command(app))} == set(COMMANDS)
    faults = {}
    for path, command in leaves(get_command(app)):
        if "--json" not in {option for parameter in command.params for option in parameter.opts}:
            faults[path] = "has no --json"
        if path in NEED_MORE:
            continue
        done = CliRunner().invoke(app, [*path.split(), *COMMANDS[path], "--json"])
        try:
            json.loads(done.stdout)
        except ValueError:
            faults[path] = f"{done.stdout!r} {done.stderr!r} {done.exception!r}"
        if "\x1b" in done.stdout or "\u202e" in done.stdout:
            faults[path] = "controls the terminal"
    assert faults == {}


def test_json_tells_what_the_words_tell(place: Path) -> None:
    def asked(*words: str) -> Any:
        return json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)

    assert asked("runs", "list")[0]["display_name"] == NAME, "escapes in JSON are read back as they were"
    assert asked("run", "run.toml")["run"]["name"] == "runs/r"
    assert asked("run", "run.toml")["report"]["verdict"] == REPORT.verdict
    assert asked("run", "run.toml", "--no-follow") == {"run": asked("runs", "get", "r")}
    assert asked("run", "run.toml", "--dry-run")["trials"] == 1
    assert asked("runs", "watch", "r")["kind"]["state"] == "succeeded"
    assert asked("adapters", "gc") == {"deleted": False, "adapters": []}
    assert asked("arc", "solved", "r") == {"tried": 1, "solved_before": [], "learned": [NAME]}
    assert asked("health", "127.0.0.1:1")["ready"] is False


def test_an_error_leaves_stdout_empty(place: Path) -> None:
    done = CliRunner().invoke(app, ["trials", "list", "r", "--state", "nope", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nope" in done.stderr


def test_lists_stay_lines_under_force_color(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    (line,) = CliRunner().invoke(app, ["runs", "list"]).stdout.splitlines()
    assert line.split("\t")[:3] == ["runs/r", "näme \\x1b[31m\\u202e", "succeeded"]


def test_logs_are_no_part_of_it(place: Path) -> None:
    """In a process of its own: a library's log goes to stdout unless the program says otherwise."""
    code = (
        "import structlog, seal_cli.commands.doctor as doctor\n"
        "from seal_cli.doctor.setup import Line\n"
        "async def check(*_):\n"
        "    structlog.get_logger('x').warning('a replica is left out')\n"
        "    return [Line('redis', True, 'fine')]\n"
        "doctor._check = check\n"
        "from seal_cli.main import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True, check=False,
        env={**os.environ, "FORCE_COLOR": "1"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [{"what": "redis", "good": True, "found": "fine", "fix": ""}]
    assert "a replica is left out" in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_no_encoding_ends_an_output(encoding: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seal_cli.report import print_report

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.write_any_encoding()
    print_report(RUN, REPORT.model_copy(update={"verdict": "θ_1 → 日本 “gut”"}), None)
    console.show("θ … –")
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    said = {"utf-8": "θ_1 → 日本 “gut”", "cp1252": "theta_1 -> \\u65e5\\u672c “gut”"}
    assert said.get(encoding, 'theta_1 -> \\u65e5\\u672c "gut"') in text
    raw.truncate(0)
    console.show_json({"a": "日本"})
    sys.stdout.flush()
    assert json.loads(raw.getvalue().strip(b"\0").decode(encoding)) == {"a": "日本"}
