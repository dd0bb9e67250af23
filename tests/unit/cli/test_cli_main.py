import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seal_cli.main import app

COMMANDS = ["up", "down", "status", "fetch", "run", "runs", "trials", "policies", "adapters", "health"]


def seal(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The real program, as a person calls it."""
    code = "from seal_cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_takes_less_than_half_a_second() -> None:
    # Processor time, so that a busy machine does not fail it; up to three tries, so that a cold disk does not.
    def taken() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert seal("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(taken() < 0.5 for _ in range(3))


def test_no_torch_in_the_command_line() -> None:
    code = (
        "import sys, seal_cli.main, seal_cli.follow, seal_cli.report, sealkit.client\n"
        "sys.exit(', '.join({'torch', 'transformers', 'peft'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_without_a_stack_the_way_out_is_said(tmp_path: Path) -> None:
    done = seal("runs", "list", cwd=tmp_path)
    assert done.returncode == 1
    assert "seal up" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_without_a_stack_fails_and_makes_nothing(tmp_path: Path) -> None:
    assert seal("status", "--quiet", cwd=tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_config_key_is_named_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("rounds = 1\nroundz = 2\n[editor]\nk = 0\n")
    done = seal("run", "run.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "roundz: unknown key; valid keys: name, task, seed, rounds" in done.stderr
    assert "editor.k" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_model_is_refused_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = seal("up", "--model", "./empty", cwd=tmp_path)
    assert done.returncode == 2
    assert "config.json" in done.stderr


def test_a_controller_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = seal("health", "127.0.0.1:1", "--timeout", "0.2", cwd=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stdout
