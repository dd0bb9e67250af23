"""A database that an older version wrote, on whatever kind: SQLite here, PostgreSQL in tests/integration/controller."""

from __future__ import annotations

import json

import pytest
from alembic import command
from sqlalchemy import inspect, text

from controller.db import aliases, attempts, audit, events, policies, runs, trials
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.attempts import Sampled
from controller.db.database import Database
from controller.db.migrate import on
from controller.db.tables import now
from sealkit.config import RunConfig, parse_config
from sealkit.domains.base import Context
from sealkit.errors import InvalidConfig, UnknownRun
from sealkit.resources import (
    Alias,
    GateState,
    PolicyTrained,
    PolicyVersion,
    Run,
    Trial,
    TrialFinished,
    TrialPhase,
    TrialState,
)
from tests.unit.controller.changes import change, operator
from tests.unit.controller.test_controller_record import create, database, driven, new_run, plan, take

__all__ = [
    "database",
    "test_a_database_from_before_tenants_keeps_all_it_has",
    "test_events_of_the_version_before_are_watched_as_they_were",
]
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
    sampled = {"reasoning": "Hm.", "teacher_answers": ("yes",), "teacher_reasoning": ("So be it.",)}
    await database.write(attempts.save_sampled, taken, Sampled(completion="text", **sampled), attempts.Spent())
    before = await database.read(trials.get, FULL_ACCESS, name)
    assert {field: getattr(before, field) for field in sampled} == sampled
    await database.write(lambda connection: command.downgrade(on(connection), "0003"))
    stored = await database.read(lambda c: json.loads(c.execute(text("SELECT config FROM runs")).scalar_one()))
    assert stored["inner_loop"].keys() == {"lora", "optimisation", "append_eos"}
    assert "anchors_path" not in stored["dataset"]

    await database.start()
    after = await database.read(trials.get, FULL_ACCESS, name)
    assert after == before.model_copy(update={"reasoning": "", "teacher_answers": (), "teacher_reasoning": ()})
    planned = await database.read(runs.plan, "a")
    assert (planned.config, planned.anchors, planned.base_answers) == (RunConfig(), [], None)


async def test_a_record_of_a_newer_version_is_refused_and_left_as_it_is(database: Database) -> None:
    await driven(database)
    await database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(InvalidConfig, match="newer version"):
        await database.start()
    assert (await database.read(runs.get, FULL_ACCESS, "a")).name == "runs/a"


async def test_events_of_the_version_before_are_watched_as_they_were(database: Database) -> None:
    """Trials and policies in stored events get the fields and names of this version; the old ones on a downgrade."""
    await driven(database)
    trial = Trial(
        name="runs/a/rounds/2/trials/x", round=2, state=TrialState.SUCCEEDED, phase=TrialPhase.E_STEP, context_id="c",
        editor="policy", index=0, policy="policies/a-2", batch_variant_rate=0.5, create_time=now(),
    )  # fmt: skip
    first = PolicyVersion(name="policies/a-0", run="runs/a", version=0, create_time=now())
    made = PolicyVersion(name="policies/a-3", run="runs/a", version=3, round=2, create_time=now())
    for kind in (TrialFinished(trial=trial), *(PolicyTrained(round=2, policy=p, kept=1) for p in (first, made))):
        await database.write(events.append, "a", kind)
    before, _ = await database.read(events.after, FULL_ACCESS, "a", "", limit=100)
    await database.write(lambda connection: command.downgrade(on(connection), "0003"))
    stored = "SELECT body FROM events WHERE kind != 'RunStateChanged' ORDER BY sequence"
    found = await database.read(lambda c: c.execute(text(stored)).scalars().all())
    bodies = [json.loads(body) if isinstance(body, str) else body for body in found]
    old = next(body["trial"] for body in bodies if "trial" in body)
    assert (old["flip_rate"], "round" in old, "batch_variant_rate" in old) == (0.5, False, False)
    assert [body["policy"]["round"] for body in bodies if "policy" in body] == ["", "runs/a/rounds/2"]

    await database.start()
    after, _ = await database.read(events.after, FULL_ACCESS, "a", "", limit=100)
    assert after == before
