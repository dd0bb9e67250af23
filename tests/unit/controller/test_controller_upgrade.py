"""A database that an older version wrote, on whatever kind: SQLite here, PostgreSQL in tests/integration/controller."""

from __future__ import annotations

import json

import pytest
from alembic import command
from sqlalchemy import inspect, text

from controller.db import aliases, attempts, audit, policies, runs, trials
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.database import Database
from controller.db.migrate import on
from sealkit.config import RunConfig, parse_config
from sealkit.domains.base import Context
from sealkit.errors import InvalidConfig, UnknownRun
from sealkit.resources import Alias, GateState, Run
from tests.unit.controller.changes import change, operator
from tests.unit.controller.test_controller_record import create, database, driven, new_run, plan, take

__all__ = ["database", "test_a_database_from_before_tenants_keeps_all_it_has"]
_CHANGED = ("runs", "aliases", "requests")


def resolved(run: Run) -> Run:
    """The run with what its config says where an older version had no word for it."""
    return run.model_copy(update={"config": parse_config(run.config).model_dump(mode="json")})


async def found(database: Database) -> tuple[Run, Alias]:
    run = resolved(await database.read(runs.get, FULL_ACCESS, "a"))
    return run, await database.read(aliases.get, FULL_ACCESS, "main")


async def test_a_database_from_before_tenants_keeps_all_it_has(database: Database) -> None:
    """Runs, aliases and requests of version 0002 are there after the upgrade, and belong to no tenant."""
    lease = await driven(database)
    theta = await database.read(policies.get, FULL_ACCESS, "policies/a-0")
    await database.write(policies.measured, lease, theta.model_copy(update={"gate": GateState.PASSED}))
    await database.write(aliases.set_to, change("aliases/main", "set"), theta.name, "why")
    before = await found(database)
    team = change("runs/t", "t", operator("team-a"))
    await database.write(runs.create, team, new_run("t"), [Context(context_id="c", split="train", payload={})])
    await database.write(lambda connection: command.downgrade(on(connection), "0002"))
    columns = await database.read(lambda c: {k: {x["name"] for x in inspect(c).get_columns(k)} for k in _CHANGED})
    assert not any("tenant" in names for names in columns.values())
    assert await database.read(lambda c: c.execute(text("SELECT request_id FROM requests")).scalars().all()) != []

    await database.start()
    assert await found(database) == before
    assert (before[0].tenant, before[1].tenant) == ("", "")
    assert resolved(await create(database, "a")) == before[0]  # the request is known still
    with pytest.raises(UnknownRun):
        await database.read(runs.get, AccessScope("team-a"), "a")
    assert (await database.read(audit.page, FULL_ACCESS, 0, "")).items == []
    await database.write(aliases.set_to, change("aliases/other"), theta.name, "")


async def test_the_version_before_finds_no_key_that_it_does_not_know(database: Database) -> None:
    """A run and a trial of now are read again after a downgrade and an upgrade; what had no place is empty."""
    lease = await driven(database, config=RunConfig(), anchors=({"id": "a", "prompt": "?"},))
    await database.write(runs.keep_base_answers, lease, {"anchors": {"a": "!"}})
    (name,) = await database.write(trials.add, lease, [plan(lease, "t")])
    taken = await take(database, name, "w")
    assert taken is not None
    await database.write(attempts.save_sampled, taken, "text", ["yes"], attempts.Spent())
    before = await database.read(trials.get, FULL_ACCESS, name)
    assert before.teacher_answers == ("yes",)
    await database.write(lambda connection: command.downgrade(on(connection), "0003"))
    stored = await database.read(lambda c: json.loads(c.execute(text("SELECT config FROM runs")).scalar_one()))
    assert stored["inner_loop"].keys() == {"lora", "optimisation", "append_eos"}
    assert "anchors_path" not in stored["dataset"]

    await database.start()
    after = await database.read(trials.get, FULL_ACCESS, name)
    assert after == before.model_copy(update={"teacher_answers": ()})
    planned = await database.read(runs.plan, "a")
    assert (planned.config, planned.anchors, planned.base_answers) == (RunConfig(), [], None)


async def test_a_record_of_a_newer_version_is_refused_and_left_as_it_is(database: Database) -> None:
    await driven(database)
    await database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(InvalidConfig, match="newer version"):
        await database.start()
    assert (await database.read(runs.get, FULL_ACCESS, "a")).name == "runs/a"
