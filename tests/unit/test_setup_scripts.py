"""What `make up` and `make setup` find out before they install anything, and what `make up` starts."""

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


def started(clone: Path, *, gpu: bool = False, **settings: str) -> tuple[int, dict[str, str], str]:
    """`scripts/up.sh` in this clone: exit code, what docker compose was given (its words as `words`), and stderr."""
    if not (clone / "scripts").exists():
        (clone / "scripts").mkdir(parents=True)
        for name in ("up.sh", "env.sh"):
            shutil.copy(ROOT / "scripts" / name, clone / "scripts")
        executable(clone / "scripts/secrets.sh", ". scripts/env.sh; choose SEAL_UID 4711")
        executable(clone / "bin/docker", 'echo "words=$*" > docker.txt; env >> docker.txt')
        executable(clone / "bin/nvidia-smi", '[ "$GPU" = True ]')
        executable(clone / "bin/nproc", "echo 8")
    (clone / "docker.txt").unlink(missing_ok=True)
    environment = {"PATH": f"{clone}/bin:{os.environ['PATH']}", "GPU": str(gpu), **settings}
    done = subprocess.run(
        [clone / "scripts/up.sh", "--scale", "trainer=2"], env=environment, capture_output=True, text=True, check=False
    )
    told = (clone / "docker.txt").read_text().splitlines() if (clone / "docker.txt").exists() else []
    return done.returncode, dict(line.split("=", 1) for line in told if "=" in line), done.stderr


def kept(clone: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (clone / ".env").read_text().splitlines() if "=" in line)


def test_what_make_up_chooses_stays_in_env_for_later_commands(tmp_path: Path) -> None:
    code, told, _ = started(tmp_path, TORCH_INDEX="")  # as make passes it on
    assert (code, told["words"]) == (0, "compose up --build --wait --detach --scale trainer=2")
    assert kept(tmp_path) == {
        "SEAL_UID": "4711",
        "GENERATOR_THREADS": "2",
        "EVALUATOR_THREADS": "2",
        "TRAINER_THREADS": "4",
        "TORCH_INDEX": "https://download.pytorch.org/whl/cpu",
        "COMPOSE_PROFILES": "cpu,observability",
    }
    assert kept(tmp_path).items() <= told.items()
    before = (tmp_path / ".env").read_text()
    assert started(tmp_path)[1] == told, "the second time it is the same"
    assert (tmp_path / ".env").read_text() == before
    assert started(tmp_path, TRAINER_THREADS="1")[1]["TRAINER_THREADS"] == "1", "the environment wins"


def test_settings_of_env_are_those_of_make_up(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / ".env").write_text(
        "# ours\nTRAINER_THREADS=3 \nSEAL_SECRETS='my secrets'\nTORCH_INDEX=\nCOMPOSE_PROFILES=cpu"
    )
    code, told, _ = started(tmp_path)
    assert code == 0
    assert (told["TRAINER_THREADS"], told["SEAL_SECRETS"], told["COMPOSE_PROFILES"]) == ("3", "my secrets", "cpu")
    assert told["TORCH_INDEX"] == "", "the index of PyPI, on purpose"
    assert kept(tmp_path)["GENERATOR_THREADS"] == "2", "on a line of its own"


def test_make_up_takes_the_files_of_gpus_and_servers_and_says_which_are_left_out(tmp_path: Path) -> None:
    code, told, _ = started(tmp_path / "gpu", gpu=True, SEAL_SAMPLING="vllm")
    assert code == 0
    assert told["COMPOSE_FILE"] == "docker-compose.yml:deploy/docker/gpu.yml:deploy/docker/vllm.yml"
    assert told["COMPOSE_PROFILES"] == "gpu,observability,vllm"
    assert "TRAINER_THREADS" not in told
    (tmp_path / "gpu/docker-compose.override.yml").touch()
    code, told, said = started(tmp_path / "gpu", gpu=True)
    assert code == 0
    assert "docker-compose.override.yml is not used" in said

    started(tmp_path / "cpu")
    (tmp_path / "cpu/docker-compose.override.yml").touch()
    code, told, said = started(tmp_path / "cpu")
    assert (code, "COMPOSE_FILE" in told, said) == (0, False, ""), "compose reads it by itself"
    code, told, said = started(tmp_path / "cpu", SEAL_SAMPLING="tgi")
    assert (code, told) == (2, {})
    assert "deploy/docker/tgi.yml" in said


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
