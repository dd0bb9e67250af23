"""The trainer as a process of its own, and what its metrics say."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from sealkit.errors import Unavailable
from sealkit.rpc.services import TrainerClient

ROOT = Path(__file__).parents[3]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TrainerProcess:
    """`python -m trainer_svc` on free ports, logging to `folder`."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self._metrics = f"127.0.0.1:{_free_port()}"
        self._log = folder / "trainer.log"
        own = {**settings, "listen": self.address, "metrics_listen": self._metrics}
        environment = {f"SEAL_TRAINER_{key.upper()}": value for key, value in own.items()}
        path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer_svc"],
                cwd=ROOT,
                env={**os.environ, **environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    async def ready(self, client: TrainerClient, *, seconds: float = 60) -> None:
        """Returns once it serves."""
        async with asyncio.timeout(seconds):
            while True:
                assert self._process.poll() is None, self._log.read_text()
                try:
                    await client.trainer_info()
                    return
                except Unavailable:
                    await asyncio.sleep(0.1)

    @property
    def resident_bytes(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def metrics(self) -> dict[tuple[str, str], float]:
        """Values by the sample's name and its first label, as of now."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return {(s.name, next(iter(s.labels.values()), "")): s.value for f in families for s in f.samples}

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
