"""What the record promises, on a real PostgreSQL: the same tests as on SQLite, and processes that start at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from controller.record import runs
from controller.record.database import Database
from controller.record.reach import EVERYTHING
from sealkit.judges.cache import VerdictCache
from sealkit.types import Outcome
from tests.integration.controller.postgresql import NotInstalled, new_database, running
from tests.unit.controller.test_controller_record import *  # noqa: F403

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL of our own."""
    try:
        with running() as url:
            yield url
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest_asyncio.fixture
async def database(server: str) -> AsyncIterator[Database]:
    made = Database(new_database(server))
    await made.start()
    yield made
    await made.close()


async def test_postgresql_keeps_one_verdict_of_judges_that_start_at_once(server: str) -> None:
    url = new_database(server).replace("postgresql+psycopg", "postgresql")
    many = [VerdictCache(url) for _ in range(4)]
    await asyncio.gather(*(one.put("k", Outcome.CORRECT, "m") for one in many), return_exceptions=True)
    await asyncio.gather(*(one.put("k", Outcome.INCORRECT, "m") for one in many))
    assert [await one.get("k") for one in many] == [Outcome.CORRECT] * 4
    for one in many:
        await one.close()


async def test_postgresql_processes_that_start_at_once_migrate_once(server: str) -> None:
    url = new_database(server)
    many = [Database(url) for _ in range(4)]
    await asyncio.gather(*(one.start() for one in many))
    assert (await many[0].read(runs.page, EVERYTHING, 0, "")).items == []
    for one in many:
        await one.close()
