"""`python -m controller api|worker|all`: the API, a worker, or both in one process. Settings: SEAL_CONTROLLER_*."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import uuid

from controller.app import App
from controller.settings import ControllerSettings, WorkerSettings
from sealkit.rpc.server import run


def main(arguments: list[str] | None = None) -> int:
    """Runs the process; the exit code is 0 after a clean stop, 1 on failure, 2 on bad usage or settings."""
    parser = argparse.ArgumentParser(prog="python -m controller", description=__doc__)
    parser.add_argument("role", choices=("api", "worker", "all"))
    role = parser.parse_args(arguments).role
    apps: list[App] = []

    def make() -> tuple[App, ControllerSettings]:
        settings = WorkerSettings() if role == "worker" else ControllerSettings()
        apps.append(App(settings, worker_id=worker_id(), api=role != "worker", worker=role != "api", stop=stop))
        return apps[0], settings

    code = run(make)
    return code or int(any(app.broke for app in apps))


def worker_id() -> str:
    """A name that is unique over all workers, also earlier ones."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def stop() -> None:
    """Stops this process gracefully."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
