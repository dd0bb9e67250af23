"""The stack of docker-compose.yml as a project of its own: other names, volumes, secrets and port than anybody's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sealkit.rpc.tls import Identity

ROOT = Path(__file__).parents[3]
PROJECT = "seal-e2e"
OURS = ("controller", "worker", "generator", "trainer", "evaluator")
EVERY = (*OURS, "redis", "postgres")
UID = "23456"
"""Whom the containers run as where we are root: nobody that an image knows."""


class Harness:
    """One stack. `words` of its methods are those of docker and docker compose."""

    def __init__(self, folder: Path, settings: dict[str, str], files: list[Path]) -> None:
        root = os.getuid() == 0
        self.folder, self.secrets, self.port = folder, folder / "secrets", _free_port()
        kept = {name: os.environ[name] for name in os.environ if name.startswith(("DOCKER_", "PATH", "HOME", "TMP"))}
        self.env = kept | settings | {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": ":".join(map(str, [ROOT / "docker-compose.yml", *files])),
            "COMPOSE_PROFILES": "cpu,observability",
            "COMPOSE_PROGRESS": "plain",
            "SEAL_VERSION": "e2e",
            "SEAL_SECRETS": str(self.secrets),
            "SEAL_MODELS_DIR": str(folder / "models"),
            "SEAL_MODEL": "/models/tiny",
            "SEAL_PORT": str(self.port),
            "SEAL_HTTP_PORT": str(_free_port()),
            "SEAL_UID": UID if root else str(os.getuid()),
            "SEAL_GID": UID if root else str(os.getgid()),
            "GENERATOR_THREADS": "1", "TRAINER_THREADS": "1", "EVALUATOR_THREADS": "1",
            "E2E_FOLDER": str(folder),
        }  # fmt: skip

    def sh(self, *words: str, given: str | None = None, seconds: float = 900, check: bool = True) -> str:
        """Runs a command against this stack and returns what it printed; a failure shows all of it."""
        done = subprocess.run(
            words, cwd=ROOT, env=self.env, input=given, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(words)}\n{done.stdout}{done.stderr}\n{self.state()}{self.logs()}"
        )
        return done.stdout

    def compose(self, *words: str, **options: Any) -> str:
        return self.sh("docker", "compose", *words, **options)

    def up(self, *words: str) -> None:
        """Everything, or `words` of `up`, until it is healthy."""
        self.compose("up", "--wait", "--wait-timeout", "300", "--detach", "--no-build", *words)

    def state(self) -> str:
        words = ["docker", "compose", "ps", "--all", "--format", "{{.Name}} {{.Status}}"]
        return subprocess.run(words, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False).stdout

    def logs(self, lines: int = 8) -> str:
        words = ["docker", "compose", "logs", "--no-color", "--tail", str(lines)]
        return subprocess.run(words, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False).stdout

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, the first replica first."""
        return self.compose("ps", "--all", "--orphans=false", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.sh("docker", "inspect", container))[0]

    def healthy(self, service: str, seconds: float = 180) -> None:
        """Waits until every container of `service` says that it is healthy."""
        ids = self.containers(service)
        wait(lambda: all(self._health(one) == "healthy" for one in ids), seconds, lambda: f"{service}: {self.state()}")

    def _health(self, container: str) -> str:
        return self.sh("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip()

    def networks(self, container: str) -> dict[str, list[str]]:
        """The networks that a container is on, each with the names it has there."""
        found = self.inspect(container)["NetworkSettings"]["Networks"]
        return {name: network["Aliases"] or [] for name, network in found.items()}

    def inside(self, service: str, url: str) -> Any:
        """What a URL inside the stack answers, asked by one of its containers: JSON, or text where it is none."""
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"
        answer = self.compose("exec", "-T", service, "python", "-c", script, url, seconds=60)
        try:
            return json.loads(answer)
        except ValueError:
            return answer

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def identity(self, name: str = "operator") -> Identity:
        folder = self.secrets / "tls" / name
        return Identity(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")

    def down(self) -> None:
        """Nothing of it stays but its images."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


def wait(until: Callable[[], Any], seconds: float, told: Callable[[], str]) -> Any:
    """The first true answer of `until`, asked twice a second; fails with what `told` says."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := until():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds:.0f} s: {told()}")


def engine() -> str:
    """Why there is no Docker Engine with Compose here; empty where there is."""
    if not shutil.which("docker"):
        return "no docker here"
    for words in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(words, capture_output=True, check=False).returncode:
            return f"`{' '.join(words)}` fails here"
    return ""


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
