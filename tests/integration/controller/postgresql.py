"""A PostgreSQL of our own, where the programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError


class NotInstalled(Exception):
    """There is no PostgreSQL here that could be started."""


def programs() -> tuple[str | None, str | None]:
    """Paths of initdb and postgres; None where not installed."""
    return shutil.which("initdb"), shutil.which("postgres")


@contextmanager
def running() -> Iterator[str]:
    """URL of a PostgreSQL of our own, on a socket in a folder that goes with it. Raises NotInstalled."""
    initdb, postgres = programs()
    if not initdb or not postgres:
        raise NotInstalled("initdb and postgres are not installed")
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="seal-pg-"))
    if user:
        shutil.chown(folder, user)
    made = subprocess.run(
        [initdb, "-D", folder / "data", "-U", "seal", "-A", "trust", "--no-sync"],
        user=user, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    if made.returncode:
        shutil.rmtree(folder)
        raise NotInstalled(f"initdb does not work here: {made.stderr.strip()[-300:]}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [postgres, "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            user=user, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        url = f"postgresql+psycopg://seal@/postgres?host={folder}"
        _await_answer(url)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # the fast shutdown: does not wait for idle connections, as SIGTERM does
        process.wait(60)
        shutil.rmtree(folder)


def new_database(server: str) -> str:
    """URL of a new, empty database of that server."""
    name = f"seal_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def _await_answer(url: str) -> None:
    engine = create_engine(url)
    for _ in range(100):
        try:
            with engine.connect():
                return
        except OperationalError:
            time.sleep(0.1)
    raise TimeoutError("PostgreSQL does not start")
