"""Aliases: set to what passed the gate, rolled back step by step, never losing their history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import insert

from controller.db import aliases, runs, tables
from controller.db.access import FULL_ACCESS
from controller.db.database import Database
from sealkit.domains.base import Context
from sealkit.errors import GateRefused, NothingToRollBack, RequestIdReused, UnknownAlias, UnknownPolicy
from sealkit.resources import GateState
from tests.records import new_record
from tests.unit.controller.changes import change
from tests.unit.controller.test_controller_record import new_run

GATES = dict.fromkeys("abc", GateState.PASSED) | {"bad": GateState.REFUSED, "old": GateState.UNMEASURED}


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = new_record(tmp_path)
    rows = [
        {
            "name": f"policies/{name}", "run_id": "r", "base_model": "b", "parent": "", "trials": [],
            "create_time": tables.now(), "usage": {}, "gate": gate, "gate_reason": "it forgot 0.9",
        }
        for name, gate in GATES.items()
    ]  # fmt: skip
    await made.write(runs.create, change("runs/r"), new_run("r"), [Context(context_id="c", split="train", payload={})])
    await made.write(lambda connection: connection.execute(insert(tables.policies), rows))
    yield made
    await made.close()


async def point(database: Database, policy: str, request_id: str = "") -> str:
    alias = await database.write(
        aliases.set_to, change("aliases/main", request_id), f"policies/{policy}", f"why {policy}"
    )
    return alias.policy


async def roll_back(database: Database, request_id: str = "") -> str:
    return (await database.write(aliases.roll_back, change("aliases/main", request_id), "")).policy


async def test_rolling_back_goes_further_back_each_time_and_forgets_nothing(database: Database) -> None:
    for policy in "abc":
        assert await point(database, policy) == f"policies/{policy}"
    assert await roll_back(database) == "policies/b"
    assert await roll_back(database) == "policies/a"
    with pytest.raises(NothingToRollBack):
        await roll_back(database)
    assert await point(database, "c") == "policies/c"
    assert await roll_back(database) == "policies/a"
    history = (await database.read(aliases.get, FULL_ACCESS, "main")).history
    assert [change.policy[-1] for change in history] == ["a", "c", "a", "b", "c", "b", "a"]
    assert history[0].reason == "rolled back from policies/c"
    assert history[1].reason == "why c"


async def test_only_what_passed_the_gate_can_be_named(database: Database) -> None:
    with pytest.raises(GateRefused, match=r"it forgot 0\.9"):
        await point(database, "bad")
    with pytest.raises(GateRefused, match="never measured"):
        await point(database, "old")
    with pytest.raises(UnknownPolicy):
        await point(database, "none")
    with pytest.raises(UnknownAlias):
        await database.read(aliases.get, FULL_ACCESS, "main")


async def test_the_same_request_again_changes_nothing_more(database: Database) -> None:
    await point(database, "a", "1")
    await point(database, "b", "2")
    assert await point(database, "a", "1") == "policies/b"
    with pytest.raises(RequestIdReused):
        await point(database, "c", "1")
    assert await roll_back(database, "3") == "policies/a"
    assert await roll_back(database, "3") == "policies/a"
    assert len((await database.read(aliases.get, FULL_ACCESS, "main")).history) == 3


async def test_pointing_where_it_points_is_no_move(database: Database) -> None:
    await point(database, "a")
    await point(database, "a")
    assert len((await database.read(aliases.get, FULL_ACCESS, "main")).history) == 1
    with pytest.raises(NothingToRollBack):
        await roll_back(database)


async def test_aliases_come_by_name_a_page_at_a_time(database: Database) -> None:
    for name in ("gamma", "alpha", "beta"):
        await database.write(aliases.set_to, change(f"aliases/{name}"), "policies/a", "")
    first = await database.read(aliases.page, FULL_ACCESS, 2, "")
    second = await database.read(aliases.page, FULL_ACCESS, 2, first.next_token)
    assert [alias.name for alias in (*first.items, *second.items)] == ["aliases/alpha", "aliases/beta", "aliases/gamma"]
    assert second.next_token == ""
