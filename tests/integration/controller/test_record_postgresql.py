"""What the record promises, on a real PostgreSQL: the same tests as on SQLite, and processes that start at once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from controller.record import runs
from controller.record.database import Database
from sealkit.judges.cache import VerdictCache
from sealkit.types import Outcome
from tests.unit.controller.test_controller_record import *  # noqa: F403

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL of our own, on a socket in a folder that goes with it."""
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if not initdb or not postgres:
        pytest.skip("initdb and postgres are not installed")
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
        pytest.skip(f"initdb does not work here: {made.stderr.strip()[-300:]}")
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [postgres, "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            user=user, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        url = f"postgresql+psycopg://seal@/postgres?host={folder}"
        _await_answer(url)
        yield url
    finally:
        running.send_signal(signal.SIGINT)  # the fast shutdown: does not wait for idle connections, as SIGTERM does
        running.wait(60)
        shutil.rmtree(folder)


@pytest_asyncio.fixture
async def database(server: str) -> AsyncIterator[Database]:
    made = Database(_new_database(server))
    await made.start()
    yield made
    await made.close()


async def test_postgresql_keeps_one_verdict_of_judges_that_start_at_once(server: str) -> None:
    url = _new_database(server).replace("postgresql+psycopg", "postgresql")
    many = [VerdictCache(url) for _ in range(4)]
    await asyncio.gather(*(one.put("k", Outcome.CORRECT, "m") for one in many), return_exceptions=True)
    await asyncio.gather(*(one.put("k", Outcome.INCORRECT, "m") for one in many))
    assert [await one.get("k") for one in many] == [Outcome.CORRECT] * 4
    for one in many:
        await one.close()


async def test_postgresql_processes_that_start_at_once_migrate_once(server: str) -> None:
    url = _new_database(server)
    many = [Database(url) for _ in range(4)]
    await asyncio.gather(*(one.start() for one in many))
    assert (await many[0].read(runs.page, 0, "")).items == []
    for one in many:
        await one.close()


def _new_database(server: str) -> str:
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
    pytest.fail("PostgreSQL does not start")
