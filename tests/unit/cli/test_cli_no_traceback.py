"""What goes wrong on a person's machine gives a message that says what to do, and an exit code; never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seal_cli.main import app

Case = tuple[list[str], int, str]
"""Words after `seal`, the exit code, and words of the message."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with things that are in the way."""
    for name in [name for name in os.environ if name.startswith("SEAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "run.toml").write_text('rounds = 1\n[dataset]\npath = "data.jsonl"\n')
    (tmp_path / "data.jsonl").write_text('{"title": "t"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "stack.json").write_text("{")
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "stack.json").mkdir()  # reading it fails for root too
    return tmp_path


def check(cases: dict[str, Case]) -> None:
    """Runs the cases and lists every one that is not as it should be."""
    faults = {}
    for name, (words, code, said) in cases.items():
        done = CliRunner().invoke(app, words)
        crashed = done.exception if not isinstance(done.exception, SystemExit | None) else None
        if crashed or done.exit_code != code or said not in done.output:
            faults[name] = (repr(crashed), done.exit_code, done.output)
    assert faults == {}


def test_a_data_folder_that_cannot_be_used_is_named_with_what_to_do(place: Path) -> None:
    cases: dict[str, Case] = {}
    for command in (["up", "--model", "./model"], ["down"], ["status"], ["runs", "list"], ["doctor"]):
        name = " ".join(command)
        cases[f"{name}: a file in its place"] = ([*command, "--data", "file"], 1, "another with --data")
        cases[f"{name}: below a file"] = ([*command, "--data", "file/in/it"], 1, "another with --data")
        cases[f"{name}: a loop of links"] = ([*command, "--data", "loop"], 2, "another with --data")
        cases[f"{name}: a home of nobody"] = ([*command, "--data", "~nobody-here/x"], 2, "another with --data")
        cases[f"{name}: a state file that is none"] = ([*command, "--data", "broken"], 1, "stack.json")
        cases[f"{name}: a state file that cannot be read"] = ([*command, "--data", "unreadable"], 1, "stack.json")
    # `down` without a folder says that no stack was running, and that is right below a file too.
    check(cases)


def failing(number: int, name: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), name)

    return fail


def test_what_the_disk_refuses_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = ["up", "--model", "./model"]
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        check({"a read-only data folder": (up, 1, "Permission denied); choose another with --data")})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing(errno.EROFS, "/data/lock"))
        check({"a read-only file system": (up, 1, "/data/lock: Read-only file system")})
    with monkeypatch.context() as patch:
        patch.setattr("seal_cli.stack.process.spawn", failing(errno.ENOSPC, "/data/logs/valkey.log"))
        check({"a full disk": (up, 1, "No space left on device")})
    with monkeypatch.context() as patch:
        patch.setattr("secrets.token_urlsafe", failing(errno.EIO, ""))
        check({"any other fault of the system": (["certs", "token", "t"], 1, "Input/output error")})


def test_settings_and_addresses_that_are_none_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ["runs", "list", "--address"]
    check(
        {
            "a port that is none": ([*runs, "127.0.0.1:99999"], 2, "no port 99999"),
            "a URL": ([*runs, "http://127.0.0.1:50050/"], 2, "write '127.0.0.1:50050'"),
            "no port": ([*runs, "localhost"], 2, "not host:port"),
            "health of a URL": (["health", "https://h:1"], 2, "SEAL_TLS_CA"),
            "health of nobody": (["health", "127.0.0.1:1"], 1, "Connection refused"),
            "a config that is a folder": (["run", "model"], 2, "Is a directory"),
            "a dataset that is a folder": (["run", "run.toml", "--dataset", "model"], 2, "model"),
            "a store that is a file": (["adapters", "list", "--store", f"{place}/file/in"], 0, ""),
            "a store of an unknown kind": (["adapters", "list", "--store", "nope://x"], 2, "nope"),
            "certificates below a file": (["certs", "make", "file/tls"], 1, "Not a directory"),
            "a token in a folder": (["certs", "token", "model"], 2, "exists"),
            "verdicts that are none": (["judge", "calibrate", "--verdicts", "file"], 2, "file"),
        }
    )
    for name, value, said in (
        ("SEAL_TRAINER_THREADS", "abc", "SEAL_TRAINER_THREADS: 'abc' is not a number of threads"),
        ("SEAL_TLS_CA", "/nowhere/ca.crt", "/nowhere/ca.crt: No such file"),
        ("SEAL_TOKEN_FILE", "/nowhere/token", "SEAL_TOKEN_FILE /nowhere/token cannot be read"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            words = ["up", "--model", "./model"] if "TRAINER" in name else [*runs, "127.0.0.1:1"]
            check({name: (words, 2, said)})


def test_a_misspelt_variable_is_told_with_the_nearest_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEAL_TRIANER_THREADS", "2")
    check(
        {"misspelt": (["status"], 1, "warning: SEAL_TRIANER_THREADS is not a setting; is SEAL_TRAINER_THREADS meant?")}
    )


def test_a_model_that_the_libraries_refuse_is_named(place: Path) -> None:
    """Whatever they raise: tokenizers raises Exception itself, a config class a TypeError."""
    from sealkit.backends.models import ModelSettings, load_model
    from sealkit.errors import InvalidModel
    from sealkit.testing.tiny import make_tiny_model

    faults = {}
    for file, content in (
        ("tokenizer.json", b'{"added_tokens": [], "model": {"type": "of nobody"}}'),
        ("tokenizer.json", b"\xff\x00"),
        ("config.json", b'{"model_type": "of nobody"}'),
        ("config.json", b'{"model_type": "llama", "hidden_size": "wide"}'),
        ("config.json", b"[]"),
        ("model.safetensors", b"\xff" * 8),
    ):
        folder = make_tiny_model(place / f"{file}-{len(content)}")
        (folder / file).write_bytes(content)
        try:
            load_model(ModelSettings(model=str(folder)))
            faults[file, content] = "is loaded"
        except InvalidModel as error:
            if str(folder) not in error.message:
                faults[file, content] = error.message
        except Exception as error:  # noqa: BLE001 - what the test looks for
            faults[file, content] = repr(error)
    assert faults == {}


def test_a_tokenizer_that_tells_no_characters_is_refused_where_they_are_needed() -> None:
    from transformers import ByT5Tokenizer

    from sealkit.errors import Unsupported
    from sealkit.types import Prompt, PromptFormat, PromptLoss, Shot, TrainingExample
    from trainer_svc.encoding import encode

    tokenizer = ByT5Tokenizer()
    shot = Prompt(user="u", shots=(Shot(user="q", assistant="a"),), format=PromptFormat.PLAIN)
    assert encode(tokenizer, TrainingExample(text="plain"), append_eos=True).labels
    for example in (
        TrainingExample(text="text", prompt=shot, prompt_loss=PromptLoss.SHOTS),  # as the domain arc trains
        TrainingExample(text="text", loss_spans=((0, 2),)),
    ):
        with pytest.raises(Unsupported, match="ByT5Tokenizer"):
            encode(tokenizer, example, append_eos=True)


START_EACH = """
import json, os, sys
from controller.__main__ import main
for settings in json.load(sys.stdin):
    os.environ.update(settings)
    sys.stderr.write(f"exit code {main(['all'])}\\n")
"""


def test_a_controller_says_why_it_does_not_start(place: Path) -> None:
    (place / "seal.db").write_text("this file is a text and not a database, and long enough to be read as one" * 20)
    sqlite, redis = "SEAL_CONTROLLER_DATABASE_URL", "SEAL_CONTROLLER_REDIS_URL"
    starts = {
        "a database that is none": ({sqlite: "sqlite:///seal.db"}, "file is not a database; move that file away"),
        "a folder": ({sqlite: f"sqlite:///{place}"}, "its folder must exist"),
        "below a file": ({sqlite: "sqlite:///file/in/seal.db"}, "cannot be created"),
        "an @ in a password": ({sqlite: "postgresql://u:p@ss@h/db"}, "write characters like"),
        "a port that is none": ({sqlite: "postgresql://u:p@h:99999/db"}, "no port 99999"),
        "no database of Redis": ({sqlite: "sqlite:///new.db", redis: "redis://h/abc"}, "'/abc' is not the number of a"),
        "a # in a password": ({redis: "redis://:12#ss@127.0.0.1/0"}, "write characters like"),
        "a URL for an address": (
            {redis: "redis://127.0.0.1:1", "SEAL_CONTROLLER_TRAINER": "http://h:1"},
            "write 'h:1'",
        ),
    }
    environment = {**os.environ, "SEAL_CONTROLLER_LISTEN": "127.0.0.1:0"}
    settings = json.dumps([settings for settings, _ in starts.values()])
    done = subprocess.run(
        [sys.executable, "-c", START_EACH], input=settings, capture_output=True, text=True, check=False, timeout=60,
        env=environment,
    )  # fmt: skip
    said = done.stderr.split("exit code ")
    faults = {
        name: text
        for (name, (_, words)), text in zip(starts.items(), said, strict=False)
        if words not in text or "Traceback" in text
    }
    assert faults == {}
    assert len(said) == len(starts) + 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_said(unbuffered: str) -> None:
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    code = "from seal_cli.main import main; main()"
    done = []
    with Path("/dev/full").open("w") as full:
        for words, streams in (
            (["--help"], {"stdout": full, "stderr": subprocess.PIPE}),
            (["--version"], {"stdout": full, "stderr": subprocess.PIPE}),
            (["status", "--data", "/nowhere"], {"stdout": subprocess.PIPE, "stderr": full}),
        ):
            ran = subprocess.run([sys.executable, "-c", code, *words], env=env, text=True, check=False, **streams)
            done.append((ran.returncode, ran.stderr or ran.stdout or ""))
    said = "error the output cannot be written: No space left on device\n"
    assert done == [(1, said), (1, said), (1, "")]
