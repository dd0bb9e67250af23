"""All four services as one process of their own, over a tiny random model and SQLite: what is thrown at them can kill
them, and whoever throws sees it. `python -m tests.security.harness FOLDER` prints their addresses as a line of JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICES = ("controller", "generator", "trainer", "evaluator")


@dataclass(frozen=True)
class Harness:
    """The running process. `addresses` by service; `log` is all that it wrote to stderr."""

    addresses: dict[str, str]
    process: subprocess.Popen[str]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def resident_mib(self) -> float:
        """Memory that it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    """The services, up and ready, until the block is left."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    environment.pop("http_proxy", None)
    log = folder / "harness.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.security.harness", str(folder)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the harness did not come up: {log.read_text()[-2000:]}"
        yield Harness(json.loads(line), process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _serve(folder: Path) -> None:
    gc.disable()  # what is imported stays
    from controller.app import App
    from controller.settings import ControllerSettings
    from evaluator_svc.service import EvaluatorService
    from evaluator_svc.settings import EvaluatorSettings
    from generator_svc.editors import Editors
    from generator_svc.service import GeneratorService
    from generator_svc.settings import GeneratorSettings
    from sealkit.backends.factory import make_backend
    from sealkit.rpc.server import GrpcServer
    from sealkit.testing.tiny import make_tiny_model
    from trainer_svc.service import TrainerService
    from trainer_svc.settings import TrainerSettings

    gc.freeze()
    gc.enable()
    model = make_tiny_model(folder / "model", hidden=16, layers=1, heads=2, kv_heads=1, context=128)
    held: dict[str, Any] = {
        "model": str(model), "store_url": str(folder / "store"), "listen": "127.0.0.1:0", "threads": 1, "device": "cpu",
    }  # fmt: skip
    generator, evaluator = GeneratorSettings(**held), EvaluatorSettings(**held)
    trainer = TrainerSettings(**held, limits={"max_steps": 4, "max_rank": 8})
    servers = {
        "generator": GrpcServer(GeneratorService(make_backend(generator), Editors(())), generator),
        "trainer": GrpcServer(TrainerService(trainer), trainer),
        "evaluator": GrpcServer(EvaluatorService(make_backend(evaluator), kept_verdicts=100), evaluator),
    }
    for server in servers.values():
        await server.listen()
        await server.start()
    controller = ControllerSettings(
        listen="127.0.0.1:0", database_url=f"sqlite:///{folder}/record.db", evaluator=servers["evaluator"].address
    )
    app = App(controller, worker_id="none", api=True, worker=False, stop=lambda: None)
    servers["controller"] = GrpcServer(app, controller)
    await servers["controller"].listen()
    await servers["controller"].start()
    sys.stdout.write(json.dumps({name: server.address for name, server in servers.items()}) + "\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        for server in servers.values():
            await server.stop(0)


if __name__ == "__main__":
    from sealkit.observability.logs import configure_logging

    configure_logging("harness")
    asyncio.run(_serve(Path(sys.argv[1])))
