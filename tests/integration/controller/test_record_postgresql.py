"""What the record promises, on a real PostgreSQL: the same tests as on SQLite, and processes that start at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text

from controller.db import audit, leases, quotas, runs
from controller.db.access import FULL_ACCESS
from controller.db.database import Database
from seal_cli.doctor.infrastructure import check_sql
from seal_cli.doctor.setup import read_settings
from sealkit.domains.base import Context
from sealkit.errors import Unavailable
from sealkit.judges.cache import VerdictCache
from sealkit.resources import Quotas
from sealkit.types import Outcome
from tests.integration.controller.postgresql import NotInstalled, new_database, running
from tests.unit.controller.changes import change, operator
from tests.unit.controller.test_controller_record import *  # noqa: F403
from tests.unit.controller.test_controller_record import new_run
from tests.unit.controller.test_controller_upgrade import (  # noqa: F401
    test_a_database_from_before_tenants_keeps_all_it_has,
    test_events_of_the_version_before_are_watched_as_they_were,
)

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


async def test_a_primary_that_became_a_standby_is_waited_for(
    database: Database, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a fail-over: the connections stay open, and writes are refused until the name leads elsewhere."""
    engine = create_engine(database._url)

    def read_only(word: str) -> None:
        with engine.begin() as connection:
            connection.execute(text("SET transaction_read_only = off"))
            connection.execute(text(f"ALTER DATABASE {database._url.database} {word}"))

    read_only("SET default_transaction_read_only = on")
    database._engine["write"].dispose()
    with pytest.raises(Unavailable, match=r"answers and refuses writes: cannot execute .* in a read-only transaction"):
        await database.write(leases.beat, "worker")
    monkeypatch.setenv("SEAL_CONTROLLER_DATABASE_URL", database._url.render_as_string(hide_password=False))
    (line,) = await check_sql(read_settings(Path("nowhere")))
    assert (line.good, "read-only" in line.found) == (False, True)
    read_only("RESET default_transaction_read_only")
    await database.write(leases.beat, "worker")
    assert (await check_sql(read_settings(Path("nowhere"))))[0].good
    engine.dispose()


async def test_postgresql_processes_that_start_at_once_migrate_once(server: str) -> None:
    url = new_database(server)
    many = [Database(url) for _ in range(4)]
    await asyncio.gather(*(one.start() for one in many))
    assert (await many[0].read(runs.page, FULL_ACCESS, 0, "")).items == []
    for one in many:
        await one.close()


async def test_postgresql_requests_at_once_get_no_more_than_the_quota(server: str) -> None:
    url = new_database(server)
    many = [Database(url) for _ in range(4)]
    await many[0].start()
    await many[0].write(quotas.replace, {"team-a": Quotas(runs_at_once=2)})
    found = [Context(context_id="c", split="train", payload={})]
    asked = [
        one.write(runs.create, change(f"runs/r{i}", f"{i}", operator("team-a")), new_run(f"r{i}"), found)
        for i, one in enumerate(many * 2)
    ]
    made = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in made) == ["QuotaExceeded"] * 6 + ["Run"] * 2
    assert (await many[0].read(quotas.used, "team-a")).runs_at_once == 2
    assert len((await many[0].read(audit.page, FULL_ACCESS, 0, "")).items) == 2
    for one in many:
        await one.close()


async def test_postgresql_work_that_ends_at_once_is_all_counted(server: str) -> None:
    url = new_database(server)
    many = [Database(url) for _ in range(4)]
    await many[0].start()
    await asyncio.gather(*(one.write(quotas.spend, "team-a", 1.5) for one in many * 5))
    assert (await many[0].read(quotas.used, "team-a")).device_seconds_a_day == 30
    for one in many:
        await one.close()
