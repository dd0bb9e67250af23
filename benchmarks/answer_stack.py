"""Processes that answer: an evaluator, the controller's API and the HTTP service, with adapters under aliases."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from controller.accept import accept
from controller.db import aliases, runs
from controller.db.access import ChangeRequest
from controller.db.database import Database
from controller.db.tables import now, policies
from seal_cli.doctor.setup import MODEL_SERVICES
from seal_cli.health import not_serving
from seal_cli.stack.ports import Ports
from sealkit.callers import NOBODY_KNOWN
from sealkit.resources import GateState

ROOT = Path(__file__).parents[1]
_RECORD = {"title": "Ossel", "context": "The river.", "questions": [{"question": "Which?", "answer": "Ossel"}]}
_START_SECONDS = 120


class AnswerStack:
    """`url` is the HTTP service's, `address` the controller's. Everything is in `folder`."""

    def __init__(self, folder: Path, model: Path, store: Path, *, threads: int = 1, **evaluator: Any) -> None:
        """`evaluator`: more of its settings."""
        self.folder = folder
        ports = Ports()
        self._ports = {name: ports.any() for name in ("evaluator", "controller", "gateway")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.address, self.url = f"127.0.0.1:{self._ports['controller']}", f"http://127.0.0.1:{self._ports['gateway']}"
        self.database = f"sqlite:///{folder}/record.db"
        held = {"model": model, "store_url": store, "threads": threads, "device": "cpu", **evaluator}
        self._settings = {
            "evaluator": held,
            # It asks no other generator and trainer of this machine how busy they are.
            "controller": {"database_url": self.database, **dict.fromkeys(MODEL_SERVICES, self._listen("evaluator"))},
            "gateway": {"controller": self.address},
        }

    def start(self, name: str) -> None:
        """Starts one process, without waiting."""
        module = {"evaluator": ["evaluator_svc"], "controller": ["controller", "api"], "gateway": ["gateway"]}[name]
        settings = {"listen": self._listen(name), **self._settings[name]}
        own = {f"SEAL_{name.upper()}_{key.upper()}": str(value) for key, value in settings.items()}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEAL_")}
        environment |= own | {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "HF_HUB_OFFLINE": "1"}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", *module]
            self._running[name] = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    async def ready(self, *names: str) -> None:
        """Waits until these are ready. Raises RuntimeError with the end of the log of one that is not."""
        for name in names:
            address = self.url if name == "gateway" else self._listen(name)
            async with asyncio.timeout(_START_SECONDS):
                while why := await asyncio.to_thread(not_serving, address):
                    if self._running[name].poll() is not None:
                        log = (self.folder / f"{name}.log").read_text(errors="replace")
                        raise RuntimeError(f"{name} ended ({why}): {log[-2000:]}")
                    await asyncio.sleep(0.1)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._running[name].kill()
        self._running[name].wait()

    def stop(self) -> None:
        """Ends what runs."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def _listen(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"


async def publish(database_url: str, adapters: Mapping[str, str], base_model: str) -> None:
    """Stores a policy for each adapter (alias → digest), and points the alias to it; `base_model`: its digest. An alias
    that exists is moved."""
    database = Database(database_url)
    await database.start()
    new, contexts = accept(
        request_id="answers", display_name="answers", config={"rounds": 1}, records=[_RECORD], retention=[], plugins=()
    )

    def store(connection: Connection) -> None:
        runs.create(connection, _change(f"runs/{new.run_id}", "answers"), new, contexts)
        for alias, digest in adapters.items():
            name = f"policies/{new.run_id}-{digest[:16]}"
            row = {
                "name": name, "run_id": new.run_id, "base_model": base_model, "parent": "", "trials": [],
                "create_time": now(), "usage": {}, "gate": GateState.PASSED, "adapter": {"digest": digest},
            }  # fmt: skip
            connection.execute(insert(policies).prefix_with("OR IGNORE"), row)
            aliases.set_to(connection, _change(f"aliases/{alias}"), name, "")

    await database.write(store)
    await database.close()


def _change(resource: str, request_id: str = "") -> ChangeRequest:
    return ChangeRequest(NOBODY_KNOWN, "Publish", resource, request_id)
