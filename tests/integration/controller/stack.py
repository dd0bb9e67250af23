"""Real processes: the controller's API and workers, and the fake services, in a folder of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.controller.controller_fakes import DOMAIN

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Starts and kills processes; `close` ends what still runs."""

    def __init__(self, folder: Path, redis_url: str, *, seconds: float, lease: float = 1.5) -> None:
        self.folder = folder
        self.seconds = seconds
        self.api = f"127.0.0.1:{free_port()}"
        self._models = free_port()
        self._running: list[subprocess.Popen[bytes]] = []
        models = f"127.0.0.1:{self._models}"
        settings = {
            "database_url": f"sqlite:///{folder}/record.db", "redis_url": redis_url, "generator": models,
            "trainer": models, "evaluator": models, "lease_seconds": lease, "domain_plugins": DOMAIN,
            "max_deliveries": 50, "grace_seconds": 5,
        }  # fmt: skip
        self._settings = {f"SEAL_CONTROLLER_{key.upper()}": str(value) for key, value in settings.items()}

    def set(self, setting: str, value: object) -> None:
        """Sets one of the controller's settings for the processes that are started from now on."""
        self._settings[f"SEAL_CONTROLLER_{setting.upper()}"] = str(value)

    def start_models(self) -> subprocess.Popen[bytes]:
        return self._start(
            "models", ["tests.integration.controller.fake_services_process", str(self._models), str(self.seconds)]
        )

    def start_holding_models(self, evaluations: int) -> subprocess.Popen[bytes]:
        """The services, which hold all evaluations after so many: no run ends until others take their place."""
        words = [str(self._models), str(self.seconds), str(evaluations)]
        return self._start("models", ["tests.integration.controller.fake_services_process", *words])

    def start_api(self) -> subprocess.Popen[bytes]:
        return self._start("api", ["controller", "api"], listen=self.api)

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", ["controller", "worker"], listen="127.0.0.1:0")

    def start_all(self) -> subprocess.Popen[bytes]:
        return self._start("all", ["controller", "all"], listen=self.api)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self, name: str, module: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        own = {f"SEAL_CONTROLLER_{key.upper()}": value for key, value in settings.items()}
        path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={**os.environ, **self._settings, **own, "PYTHONPATH": path},
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process


async def ended(process: subprocess.Popen[bytes], *, seconds: float = 15) -> int:
    return await asyncio.to_thread(process.wait, seconds)
