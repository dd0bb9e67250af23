"""What `make up` and `make setup` find out before they install anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def checked(folder: Path, docker: str | None) -> tuple[int, str]:
    """Exit code and message of the check with this `docker` on the path."""
    tools = folder / "bin"
    tools.mkdir(parents=True)
    for name in ("bash", "tail", "env"):
        (tools / name).symlink_to(shutil.which(name) or "")
    if docker is not None:
        executable(tools / "docker", docker)
    done = subprocess.run(
        [ROOT / "scripts/check_docker.sh"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def answering(engine: str, compose: str) -> str:
    return f'[ "$1" = compose ] && echo {compose} || echo {engine}'


def test_make_up_says_what_is_wrong_with_docker_before_it_installs_anything(tmp_path: Path) -> None:
    away = "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1"
    no_plugin = '[ "$1" != compose ] && echo 28.2.2 || { echo "docker: \'compose\' is not a docker command."; exit 1; }'
    wrong = {
        "docker is not installed": None,
        "Docker Engine does not answer (permission denied": away,
        "docker has no Compose plugin; install docker-compose-plugin": no_plugin,
        "Docker Engine 24.0.7 is too old; 25.0.0 or newer": answering("24.0.7", "2.40.0"),
        "Docker Compose 2.17.2 is too old; 2.24.4 or newer": answering("26.1.5+dfsg1", "v2.17.2"),
        "Docker Compose 2.24.3 is too old": answering("25.0", "2.24.3"),
    }
    missed = {}
    for number, (message, docker) in enumerate(wrong.items()):
        code, said = checked(tmp_path / str(number), docker)
        if code != 1 or message not in said:
            missed[message] = (code, said)
    assert missed == {}
    good = [("25.0.0", "2.24.4"), ("26.1.5+dfsg1", "v2.40.0"), ("28.2.2", "2.24.6-desktop.1"), ("30.0", "5.0")]
    for number, versions in enumerate(good):
        assert checked(tmp_path / f"good{number}", answering(*versions)) == (0, ""), versions
    recipe = (ROOT / "Makefile").read_text().partition("\nup:")[2].partition("\n\n")[0].splitlines()
    assert recipe[1:] == [
        "\t@scripts/check_docker.sh",
        "\t@$(MAKE) --no-print-directory setup",
        "\t@scripts/up.sh $(ARGS)",
    ]


def test_an_interpreter_in_a_folder_with_a_space_is_used(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup.sh", clone / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        (clone / name).touch()
    python = executable(tmp_path / "my tools" / "python3", f'echo "$*" >> "{tmp_path}/calls"; [ "$1" != -m ]')
    done = subprocess.run(
        [clone / "scripts/setup.sh"], env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True
    )
    calls = (tmp_path / "calls").read_text()
    assert "version_info" in calls
    assert "import venv, ensurepip" in calls, "it was accepted"
    assert "Python 3.11 or newer is needed" not in done.stderr


@pytest.mark.parametrize(("value", "seen"), [("", "unset"), ("4", "4")])
def test_a_container_does_not_pass_an_empty_number_of_threads_on(value: str, seen: str) -> None:
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    show = ["/bin/sh", "-c", "echo ${OMP_NUM_THREADS-unset}"]
    done = subprocess.run(
        [*json.loads(entrypoint), *show], env={"OMP_NUM_THREADS": value}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == seen
