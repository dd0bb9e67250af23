"""What the record promises, on whatever database: SQLite here, PostgreSQL in tests/integration/controller."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select

from controller.db import attempts, contexts, events, leases, policies, rates, reruns, runs, tables, trials
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.attempts import Result, Spent, Untaken
from controller.db.database import Database
from controller.db.leases import LeaseLost, RunLease, TrialLease
from controller.db.load import run_loads
from controller.db.trials import Plan
from sealkit.config import parse_config
from sealkit.domains.base import Context
from sealkit.errors import (
    InvalidConfig,
    InvalidCursor,
    InvalidInput,
    ModelMismatch,
    RequestIdReused,
    RunNotResumable,
    UnknownPolicy,
    UnknownRun,
    UnknownTrial,
)
from sealkit.resources import (
    Editor,
    Fault,
    Run,
    RunState,
    RunStateChanged,
    RunWaiting,
    TrialFinished,
    TrialPhase,
    TrialState,
)
from sealkit.types import Usage
from tests.records import new_record
from tests.unit.controller.changes import change, operator
from tests.unit.controller.controller_fakes import manifest

BASE = "ab" * 32


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = new_record(tmp_path)
    yield made
    await made.close()


def new_run(run_id: str, **changes: Any) -> runs.NewRun:
    """`config` is filled up with defaults."""
    values: dict[str, Any] = {
        "run_id": run_id, "digest": "d", "display_name": run_id, "retention": (), "rounds_total": 2,
        "planned": runs.PlannedTrials(groups=1, edits=8, passages=1),
    }  # fmt: skip
    return runs.NewRun(**{**values, **changes, "config": parse_config(changes.get("config", {}))})


async def create(
    database: Database, run_id: str = "a", contexts: Sequence[Context] | None = None, **changes: Any
) -> Run:
    """A run that a request of the same id asks for."""
    found = [Context(context_id="c", split="train", payload={})] if contexts is None else contexts
    return await database.write(runs.create, change(f"runs/{run_id}", run_id), new_run(run_id, **changes), found)


async def driven(database: Database, run_id: str = "a", **changes: Any) -> RunLease:
    """A run in a driver's hands, with θ_0."""
    await create(database, run_id, **changes)
    await database.write(leases.beat, "driver")
    (lease,) = await database.write(runs.take_free, "driver", ())
    await database.write(policies.begin, lease, start_policy="", base_model=BASE, domain="knowledge")
    return lease


def plan(lease: RunLease, trial_id: str, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "run_id": lease.run_id, "round": 0, "trial_id": trial_id, "phase": TrialPhase.E_STEP, "editor": Editor.POLICY,
        "context_id": "c", "index": 0, "policy": f"policies/{lease.run_id}-0",
    }  # fmt: skip
    return Plan(**{**values, **changes})


async def take(database: Database, name: str, worker: str, previous: str | None = None) -> TrialLease | None:
    taken = await database.write(attempts.take, name, worker, previous=previous, max_deliveries=5)
    return None if isinstance(taken, Untaken) else taken.lease


def succeeded(accuracy: float) -> Result:
    return Result(
        state=TrialState.SUCCEEDED, accuracy=accuracy, reward=accuracy, spent=Spent(stage_seconds={"train": 1.0})
    )


def test_migrations_make_the_tables_that_the_code_has(tmp_path: Path) -> None:
    async def differences() -> list[Any]:
        database = Database(f"sqlite:///{tmp_path}/record.db")
        await database.start()
        found = await database.read(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
        await database.close()
        return list(found)

    assert asyncio.run(differences()) == []


async def test_a_process_that_starts_waits_for_the_one_that_writes_to_a_new_file(tmp_path: Path) -> None:
    first = sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    second = Database(f"sqlite:///{tmp_path}/record.db")
    starting = asyncio.create_task(second.start())
    await asyncio.sleep(0.05)
    assert not starting.done()
    first.execute("ROLLBACK")
    await starting
    await second.close()
    first.close()


async def test_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    many = [Database(f"sqlite:///{tmp_path}/record.db") for _ in range(4)]
    await asyncio.gather(*(one.start() for one in many))
    assert (await many[0].read(runs.page, FULL_ACCESS, 0, "")).items == []
    for one in many:
        await one.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="DATABASE_URL"):
        Database(url)


# --- requests ---------------------------------------------------------------------------------------------------------
async def test_nobody_waits_for_a_read_that_takes_long(database: Database) -> None:
    over = threading.Event()
    long = asyncio.create_task(database.read_apart(lambda _: over.wait(30)))
    await create(database)
    assert (await database.read(runs.get, FULL_ACCESS, "a")).name == "runs/a"
    assert not long.done()
    over.set()
    assert await long


async def test_the_same_request_makes_one_run(database: Database) -> None:
    first = await create(database, "a")
    again = await create(database, "a", [])
    assert again == first
    assert len((await database.read(runs.page, FULL_ACCESS, 0, "")).items) == 1
    with pytest.raises(RequestIdReused):
        await create(database, "a", [], digest="other")


async def test_a_run_from_an_unknown_policy_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(UnknownPolicy):
        await create(database, "a", [], config={"start_policy": "policies/none"})
    with pytest.raises(UnknownRun):
        await database.read(runs.get, FULL_ACCESS, "a")


async def test_only_an_unsuccessful_run_is_resumed(database: Database) -> None:
    lease = await driven(database)
    with pytest.raises(RunNotResumable, match="running"):
        await database.write(runs.resume, change("runs/a", ""))
    await database.write(runs.succeed, lease)
    with pytest.raises(RunNotResumable, match="succeeded"):
        await database.write(runs.resume, change("runs/a", ""))


# --- leases -----------------------------------------------------------------------------------------------------------
async def test_a_run_has_one_driver(database: Database) -> None:
    lease = await driven(database)
    await database.write(leases.beat, "other")
    assert await database.write(runs.take_free, "other", ()) == []
    (taken,) = await database.write(runs.take_free, "other", {"driver"})
    with pytest.raises(LeaseLost):
        await database.write(trials.add, lease, [plan(lease, "c-0")])
    assert await database.write(trials.add, taken, [plan(taken, "c-0")]) == [f"{taken.run}/rounds/0/trials/c-0"]


async def test_who_left_or_was_struck_off_holds_nothing(database: Database) -> None:
    await driven(database)
    await database.write(leases.leave, ["driver"])
    assert len(await database.write(runs.take_free, "other", ())) == 1


async def test_a_cancelled_run_is_in_nobodys_hands(database: Database) -> None:
    lease = await driven(database)
    (name,) = await database.write(trials.add, lease, [plan(lease, "c-0")])
    held = await take(database, name, "w")
    assert held is not None
    await database.write(runs.cancel, change("runs/a", ""))
    with pytest.raises(LeaseLost):
        await database.write(runs.stage, lease, 0, "E-step")
    assert await database.write(attempts.finish, held, succeeded(1.0)) is None
    assert (await database.read(trials.get, FULL_ACCESS, name)).state is TrialState.CANCELLED
    assert await database.read(attempts.held_by, "w") == set()


async def test_a_late_result_changes_nothing_and_is_counted(database: Database) -> None:
    lease = await driven(database)
    (name,) = await database.write(trials.add, lease, [plan(lease, "c-0")])
    assert await database.write(trials.add, lease, [plan(lease, "c-0")]) == []
    first, second = await take(database, name, "w"), await take(database, name, "v", previous="w")
    assert first is not None
    assert second is not None
    assert await database.write(attempts.finish, first, succeeded(0.1)) is None
    assert await database.write(attempts.finish, second, succeeded(0.5)) is not None
    assert await database.write(attempts.finish, second, succeeded(0.9)) is None
    row = await database.read(trials.get, FULL_ACCESS, name)
    assert (row.state, row.accuracy) == (TrialState.SUCCEEDED, 0.5)
    assert await database.read(_late_results, name) == 2
    found, _ = await database.read(events.after, FULL_ACCESS, "a", "", limit=100)
    assert sum(isinstance(event.kind, TrialFinished) for event in found) == 1
    assert (await database.read(runs.get, FULL_ACCESS, "a")).progress.trials_done == 1


async def test_a_trial_in_other_hands_is_not_taken(database: Database) -> None:
    lease = await driven(database)
    (name,) = await database.write(trials.add, lease, [plan(lease, "c-0")])
    assert await take(database, name, "w") is not None
    assert await take(database, name, "v") is None
    assert await take(database, name, "v", previous="u") is None


async def test_what_a_dead_worker_had_is_queued_again(database: Database) -> None:
    lease = await driven(database)
    names = await database.write(trials.add, lease, [plan(lease, "c-0"), plan(lease, "c-1", index=1)])
    held = await take(database, names[0], "w")
    assert held is not None
    await database.write(leases.beat, "w")
    assert await database.read(trials.unfinished, "a", set()) == ([names[1]], [])
    assert await database.read(trials.unfinished, "a", {"w"}) == ([names[1]], [names[0]])
    await database.write(trials.put_back, lease, {"w"})
    assert await database.write(attempts.finish, held, succeeded(1.0)) is None
    assert await take(database, names[0], "v") is not None


async def test_writers_at_once_take_a_trial_once_and_number_events_without_gaps(database: Database) -> None:
    lease = await driven(database)
    names = await database.write(trials.add, lease, [plan(lease, f"c-{i}", index=i) for i in range(20)])
    taken = await asyncio.gather(*(take(database, name, w) for name in names for w in ("w", "v")))
    held = [one for one in taken if one is not None]
    assert sorted(one.name for one in held) == sorted(names)
    await asyncio.gather(*(database.write(attempts.finish, one, succeeded(0.5)) for one in held))
    found, _ = await database.read(events.after, FULL_ACCESS, "a", "", limit=100)
    assert [event.cursor for event in found] == [str(i + 1) for i in range(22)]
    assert [event.progress.trials_done for event in found if isinstance(event.kind, TrialFinished)] == [*range(1, 21)]


# --- resuming ---------------------------------------------------------------------------------------------------------
async def test_resume_tries_again_what_can_still_count(database: Database) -> None:
    lease = await driven(database)
    closed, opened = plan(lease, "c-0"), plan(lease, "c-0", round=1)
    passage = plan(lease, "c-passage", round=1, editor=Editor.PASSAGE_ONLY)
    names = await database.write(trials.add, lease, [closed, opened, passage])
    fault = Fault(code=9, reason="NON_FINITE_LOSS", message="NaN")
    for name in names[:2]:
        held = await take(database, name, "w")
        assert held is not None
        await database.write(attempts.finish, held, Result(state=TrialState.FAILED, error=fault))
    theta = await database.read(policies.get, FULL_ACCESS, "policies/a-0")
    await database.write(policies.begin_round, lease, 0, theta.name)
    await database.write(policies.end_round, lease, 0, theta, theta, kept=0)
    await database.write(runs.fail, lease, fault)
    resumed = await database.write(runs.resume, change("runs/a", "again"))
    assert (resumed.state, resumed.error, resumed.progress.trials_done) == (RunState.QUEUED, None, 1)
    states = {trial.name: trial.state for trial in await database.read(trials.of_run, "a")}
    assert states == {names[0]: TrialState.FAILED, names[1]: TrialState.QUEUED}


# --- rounds and policies ----------------------------------------------------------------------------------------------
async def test_a_round_ends_once(database: Database) -> None:
    lease = await driven(database)
    theta = await database.read(policies.get, FULL_ACCESS, "policies/a-0")
    assert await database.write(policies.begin_round, lease, 0, theta.name) is None
    new = theta.model_copy(update={"name": "policies/a-1", "version": 1, "parent": theta.name, "round": 0})
    other = new.model_copy(update={"trials": ("x",)})
    assert await database.write(policies.end_round, lease, 0, new, new, kept=1) == new
    assert (await database.write(policies.end_round, lease, 0, other, other, kept=2)).trials == ()
    assert await database.write(policies.begin_round, lease, 0, theta.name) == "policies/a-1"
    assert (await database.read(runs.get, FULL_ACCESS, "a")).progress.rounds_done == 1
    assert [p.name for p in await database.read(policies.of_run, "a")] == ["policies/a-0", "policies/a-1"]


async def test_a_policy_of_another_base_model_is_refused(database: Database) -> None:
    await driven(database)
    await create(database, "b", [_context()], config={"start_policy": "policies/a-0"})
    (lease,) = await database.write(runs.take_free, "driver", ())
    with pytest.raises(ModelMismatch, match="policies/a-0"):
        await database.write(
            policies.begin, lease, start_policy="policies/a-0", base_model="ef" * 32, domain="knowledge"
        )


# --- reading ----------------------------------------------------------------------------------------------------------
async def test_pages_of_trials_hold_each_once_in_order(database: Database) -> None:
    lease = await driven(database)
    plans = [plan(lease, f"c-{i}", index=i, round=r) for r in (0, 1) for i in range(5)]
    names = await database.write(trials.add, lease, plans)
    assert await _all_pages(database, trials.page, FULL_ACCESS, "runs/a", size=3) == names
    assert await _all_pages(database, trials.page, FULL_ACCESS, "runs/a/rounds/1", size=2) == names[5:]
    with pytest.raises(InvalidInput, match="page_token"):
        await database.read(trials.page, FULL_ACCESS, "runs/a", 3, "nonsense")
    with pytest.raises(UnknownRun):
        await database.read(trials.page, FULL_ACCESS, "runs/none", 3, "")
    with pytest.raises(UnknownTrial):
        await database.read(trials.get, FULL_ACCESS, "runs/a/rounds/0/trials/none")


async def test_pages_of_runs_and_policies_come_newest_first(database: Database) -> None:
    for run_id in ("a", "b", "c"):
        await driven(database, run_id)
    assert await _all_pages(database, runs.page, FULL_ACCESS, size=2) == ["runs/c", "runs/b", "runs/a"]
    assert await _all_pages(database, policies.page, FULL_ACCESS, size=2) == [f"policies/{r}-0" for r in "cba"]
    # A token of one listing is none of another.
    token = (await database.read(trials.page, FULL_ACCESS, "runs/a", 1, "")).next_token or "W10"
    with pytest.raises(InvalidInput):
        await database.read(runs.page, FULL_ACCESS, 2, token)


async def test_events_go_on_after_a_cursor_and_end_with_the_run(database: Database) -> None:
    lease = await driven(database)
    found, ended = await database.read(events.after, FULL_ACCESS, "a", "", limit=1)
    assert (len(found), ended) == (1, False)
    await database.write(runs.cancel, change("runs/a", ""))
    rest, ended = await database.read(events.after, FULL_ACCESS, "a", found[0].cursor, limit=100)
    states = [event.kind.state for event in rest if isinstance(event.kind, RunStateChanged)]
    assert (states, ended) == ([RunState.RUNNING, RunState.CANCELLED], True)
    await database.write(runs.resume, change(lease.run, ""))
    rest, ended = await database.read(events.after, FULL_ACCESS, "a", rest[-1].cursor, limit=100)
    assert (len(rest), ended) == (1, False)  # an end that was taken back is no end
    for cursor in ("99", "-1", "x", "²"):
        with pytest.raises(InvalidCursor):
            await database.read(events.after, FULL_ACCESS, "a", cursor, limit=1)


async def test_the_latest_events_come_after_those_that_say_where_the_run_is(database: Database) -> None:
    lease = await driven(database)
    away = Fault(code=14, reason="UNAVAILABLE", message="away")
    for doing, error in (("sample", away), ("train", away), ("sample", None), ("train", away)):
        await database.write(runs.waits, "a", RunWaiting(doing=doing, error=error))
    await database.write(runs.stage, lease, 0, "E-step")
    names = await database.write(trials.add, lease, [plan(lease, f"t{n}") for n in range(5)])
    for name in names:
        taken = await take(database, name, "w")
        assert taken is not None
        await database.write(attempts.finish, taken, succeeded(1.0))

    async def cursors(cursor: str, latest: int, limit: int = 100) -> list[str]:
        found, _ = await database.read(events.after, FULL_ACCESS, "a", cursor, limit=limit, latest=latest)
        return [event.cursor for event in found]

    # 1 and 2: queued, running; 3 to 6: the waits; 7: the stage; 8 to 12: the trials.
    assert await cursors("", 0) == [str(n) for n in range(1, 13)]
    assert await cursors("", 2) == ["2", "5", "6", "7", "11", "12"], "the wait that ended too: its start may be known"
    assert await cursors("4", 2) == ["5", "6", "7", "11", "12"]
    assert await cursors("9", 2) == ["11", "12"]
    assert await cursors("11", 2) == ["12"]
    assert await cursors("", 20) == await cursors("", 0)
    assert await cursors("", 4, limit=2) == ["2", "5", "6", "7", "9", "10"], "the rest comes after the last one"
    await database.write(runs.cancel, change("runs/a", ""))
    found, ended = await database.read(events.after, FULL_ACCESS, "a", "", limit=100, latest=1)
    assert ([event.cursor for event in found], ended) == (["2", "5", "6", "7", "13"], True)


async def test_the_load_is_each_run_with_trials_to_do(database: Database) -> None:
    lease = await driven(database)
    theirs = new_run("b", config={"scheduling": {"priority": 5}})
    await database.write(runs.create, change("runs/b", "b", operator("team-b")), theirs, [])
    names = await database.write(trials.add, lease, [plan(lease, f"t{n}") for n in range(4)])
    for name in names[:2]:
        taken = await take(database, name, "w")
        assert taken is not None
    await database.write(attempts.finish, taken, succeeded(1.0))
    total = (await database.read(runs.get, FULL_ACCESS, "a")).progress.trials_total
    loads = {load.run: load for load in await database.read(run_loads, FULL_ACCESS)}
    assert list(loads) == ["runs/b", "runs/a"], "the higher priority first"
    a = loads["runs/a"]
    assert (a.state, a.running, a.queued, a.planned) == (RunState.RUNNING, 1, 2, total - 4)
    assert (loads["runs/b"].running, loads["runs/b"].queued, loads["runs/b"].priority) == (0, 0, 5)
    assert [load.run for load in await database.read(run_loads, AccessScope("team-b"))] == ["runs/b"]
    await database.write(runs.pause, change("runs/a", ""))
    a = {load.run: load for load in await database.read(run_loads, FULL_ACCESS)}["runs/a"]
    assert (a.state, a.running, a.queued, a.planned) == (RunState.PAUSED, 1, 2, 0)
    await database.write(runs.cancel, change("runs/a", ""))
    assert [load.run for load in await database.read(run_loads, FULL_ACCESS)] == ["runs/b"]


async def test_contexts_come_in_the_order_of_the_records(database: Database) -> None:
    found = [Context(context_id=f"c{i}", split="train", payload={"i": i}) for i in (3, 1, 2)]
    await create(database, "a", [*found, Context(context_id="h", split="heldout", payload={})])
    assert await database.read(contexts.of_split, "a", "train") == found


def _context() -> Context:
    return Context(context_id="c", split="train", payload={})


async def _all_pages(database: Database, listing: Any, *where: str, size: int) -> list[str]:
    names: list[str] = []
    token = ""
    while True:
        page = await database.read(listing, *where, size, token)
        assert len(page.items) <= size
        names += [item.name for item in page.items]
        if not (token := page.next_token):
            return names


def _late_results(connection: Connection, name: str) -> int | None:
    return connection.scalar(select(tables.trials.c.late_results).where(tables.trials.c.name == name))


# --- reruns and rates ------------------------------------------------------------------------------------------------
async def tried(database: Database, lease: RunLease, **changes: Any) -> str:
    """A trial of the run that has ended with a manifest."""
    (name,) = await database.write(trials.add, lease, [plan(lease, "c-0", **changes)])
    held = await take(database, name, "w")
    assert held is not None
    usage = Usage(train_tokens=10, device_seconds=2.0)
    result = succeeded(0.5).changed(manifest=manifest(), spent=Spent(stage_usage={"train": usage}))
    await database.write(attempts.finish, held, result)
    return name


async def test_a_rerun_outlives_its_worker_and_its_run(database: Database) -> None:
    lease = await driven(database)
    name = await tried(database, lease)
    rerun = await database.write(reruns.add, change(name, "r"))
    assert await database.read(reruns.waiting) == [rerun.name]
    await database.write(leases.beat, "mortal")
    held = await take(database, rerun.name, "mortal")
    assert held is not None
    assert await database.read(reruns.waiting) == []
    assert not await database.read(reruns.orphaned, ())
    await database.write(runs.cancel, change(lease.run, "c"))
    assert await database.read(reruns.orphaned, {"mortal"})
    await database.write(reruns.put_back, {"mortal"})
    assert await database.read(reruns.waiting) == [rerun.name]
    assert await database.write(attempts.finish, held, succeeded(1.0)) is None, "the dead worker's result is late"
    again = await take(database, rerun.name, "w")
    assert again is not None
    before = await database.read(runs.get, FULL_ACCESS, lease.run_id)
    assert (await database.write(attempts.finish, again, succeeded(1.0))) is not None
    assert await database.read(runs.get, FULL_ACCESS, lease.run_id) == before
    found, original = await database.read(reruns.pair, FULL_ACCESS, rerun.name)
    assert (found.trial.accuracy, found.trial.rerun_of, original.trial.name) == (1.0, name, name)


async def test_rates_are_those_of_the_domain_on_the_base_model_that_it_was_last_tried_on(database: Database) -> None:
    mine = new_run("n", config={"domain": {"name": "mine"}})
    assert await database.read(rates.rates_for, FULL_ACCESS, mine) is None
    await tried(database, await driven(database, "a", config={"domain": {"name": "mine"}}))
    await tried(database, await driven(database, "b", config={"domain": {"name": "other"}}))
    found = await database.read(rates.rates_for, FULL_ACCESS, mine)
    assert found is not None
    assert (found.base_model, found.runs, len(found.trials), found.trials_done) == (BASE, 1, 1, 1)
    assert found.trials[0].stages == {"train": Usage(train_tokens=10, device_seconds=2.0)}
    assert found.device_seconds == 2.0
