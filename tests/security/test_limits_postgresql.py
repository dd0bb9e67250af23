"""What PostgreSQL cannot hold and SQLite can: NUL in a text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from controller.db.database import Database
from sealkit.errors import InvalidInput
from tests.integration.controller.postgresql import NotInstalled, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with running() as url:
            yield url
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 2**70])
async def test_what_postgresql_does_not_hold_is_the_callers_fault(server: str, value: object) -> None:
    asked = text("SELECT CAST(:v AS bigint)" if isinstance(value, int) else "SELECT :v || ''")
    database = Database(server)
    try:
        with pytest.raises(InvalidInput, match="stored in a database"):
            await database.read(lambda c: c.execute(asked, {"v": value}).all())
        assert await database.read(lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1
    finally:
        await database.close()
