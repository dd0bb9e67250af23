"""Quotas: what a tenant may have and take, at the edge; when they are checked, and what counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.accept import accept
from controller.db import quotas, reruns, runs, trials
from controller.db.database import Database
from controller.db.tables import tenants
from sealkit.errors import BudgetExhausted, QuotaExceeded
from sealkit.resources import Budget, Quotas, Run, RunState, Trial
from sealkit.types import TrainingResult, Usage
from tests.unit.controller.changes import change, operator
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, FakeServices, records, tiny_config
from tests.unit.controller.controller_system import System

TEAM = operator("team-a")
PLANNED = 24
"""Trials of the tiny config."""


async def create(system: System, request_id: str, who: Any = TEAM, **changes: Any) -> Run:
    new, contexts = accept(
        request_id=request_id, display_name="", config=tiny_config(**changes), records=records(), retention=RETENTION,
        plugins=(DOMAIN,), tenant=who.tenant,
    )  # fmt: skip
    return await system.database.write(runs.create, change(f"runs/{new.run_id}", request_id, who), new, contexts)


async def tell(system: System, **limits: Any) -> None:
    await system.database.write(quotas.replace, {"team-a": Quotas(**limits)})


async def spend(system: System, seconds: float) -> None:
    await system.database.write(quotas.spend, "team-a", seconds)


async def used(database: Database) -> Quotas:
    return await database.read(quotas.used, "team-a")


class CostlyServices(FakeServices):
    """Training an adapter takes two device seconds, an M-step five."""

    async def train_adapter(self, *args: Any, **kwargs: Any) -> Any:
        async for update in super().train_adapter(*args, **kwargs):
            yield _dear(update, 2.0)

    async def train_policy(self, *args: Any, **kwargs: Any) -> Any:
        async for update in super().train_policy(*args, **kwargs):
            yield _dear(update, 5.0)


def _dear(update: Any, seconds: float) -> Any:
    return update.model_copy(update={"usage": Usage(device_seconds=seconds)}) if _last(update) else update


def _last(update: Any) -> bool:
    return isinstance(update, TrainingResult)


# --- when a run is made -----------------------------------------------------------------------------------------------
async def test_so_many_runs_at_once_and_no_more(system: System) -> None:
    await tell(system, runs_at_once=2)
    first, _ = await create(system, "1"), await create(system, "2")
    with pytest.raises(QuotaExceeded, match="2 of 2 are active") as caught:
        await create(system, "3")
    assert caught.value.metadata == {"tenant": "team-a", "quota": "runs_at_once"}
    assert "pause or cancel one" in caught.value.message
    assert await create(system, "1") == first  # what was asked before is answered, quota or not
    await create(system, "3", operator("team-b"))
    await system.database.write(runs.pause, change(first.name, "p", TEAM))
    await create(system, "3")
    with pytest.raises(QuotaExceeded, match="runs_at_once"):
        await system.database.write(runs.resume, change(first.name, "r", TEAM))
    assert (await system.run(first)).state is RunState.PAUSED


async def test_a_run_of_just_so_many_trials_at_just_that_priority(system: System) -> None:
    await tell(system, trials_in_run=PLANNED, highest_priority=3)
    assert (await create(system, "1", scheduling={"priority": 3})).progress.trials_total == PLANNED
    with pytest.raises(QuotaExceeded, match="above 3"):
        await create(system, "2", scheduling={"priority": 4})
    await tell(system, trials_in_run=PLANNED - 1)
    with pytest.raises(QuotaExceeded, match=f"{PLANNED} of at most {PLANNED - 1}"):
        await create(system, "2")
    assert len((await system.database.read(runs.page, change("", caller=TEAM).scope, 0, "")).items) == 1


async def test_device_seconds_are_used_up_at_the_limit_and_not_before(system: System) -> None:
    await tell(system, device_seconds_a_day=10)
    await spend(system, 9.5)
    await create(system, "1")
    await spend(system, 0.5)
    with pytest.raises(QuotaExceeded, match=r"10\.0 of 10\.0 are used today.*00:00 UTC"):
        await create(system, "2")


async def test_a_new_day_begins_with_nothing_used(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    await tell(system, device_seconds_a_day=10)
    await spend(system, 12)
    monkeypatch.setattr(quotas, "now", lambda: datetime(2100, 1, 1, tzinfo=UTC))
    assert (await used(system.database)).device_seconds_a_day == 0
    await create(system, "1")
    await spend(system, 3)
    assert (await used(system.database)).device_seconds_a_day == 3


async def test_quotas_that_the_file_names_no_more_are_gone(system: System) -> None:
    await tell(system, runs_at_once=1)
    await create(system, "1")
    with pytest.raises(QuotaExceeded):
        await create(system, "2")
    await system.database.write(quotas.replace, {})
    await create(system, "2")
    assert (await used(system.database)).runs_at_once == 2


async def test_an_admin_who_resumes_a_tenants_run_is_held_to_the_tenants_quotas(system: System) -> None:
    run = await create(system, "1")
    await system.database.write(runs.cancel, change(run.name))
    await tell(system, trials_in_run=1)
    with pytest.raises(QuotaExceeded, match="team-a"):
        await system.database.write(runs.resume, change(run.name))


# --- while it is under way --------------------------------------------------------------------------------------------
async def test_a_run_stops_where_the_day_is_used_up_and_goes_on_with_more(system: System) -> None:
    system.services = CostlyServices()
    await tell(system, device_seconds_a_day=9)
    async with system.working(concurrency=1):
        run = await system.until(await create(system, "1"))
        assert run.state is RunState.PAUSED
        assert run.error is not None
        assert run.error.reason == "QUOTA_EXCEEDED"
        taken = await used(system.database)
        assert taken.device_seconds_a_day == pytest.approx(10)  # the trial that met the limit came to its end
        assert taken.runs_at_once == 0
        with pytest.raises(QuotaExceeded):
            await system.database.write(runs.resume, change(run.name, "r", TEAM))
        await tell(system, device_seconds_a_day=10_000)
        await system.database.write(runs.resume, change(run.name, "r", TEAM))
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    spent = await system.database.read(lambda c: c.execute(runs.select(runs.runs.c.spent_device_seconds)).scalar_one())
    assert (await used(system.database)).device_seconds_a_day == pytest.approx(spent)  # M-steps included


async def test_the_smaller_of_budget_and_quota_is_in_force(system: System) -> None:
    system.services = CostlyServices()
    await tell(system, device_seconds_a_day=30)
    async with system.working(concurrency=1):
        by_budget = await system.until(await create(system, "1", budget={"device_seconds": 5}))
        assert by_budget.error is not None
        assert by_budget.error.reason == "BUDGET_EXHAUSTED"
        with pytest.raises(BudgetExhausted):
            await system.database.write(runs.resume, change(by_budget.name, "r", TEAM))
        await system.database.write(runs.resume, change(by_budget.name, "r", TEAM), Budget(device_seconds=10_000))
        by_quota = await system.until(by_budget, lambda run: run.state is RunState.PAUSED)
    assert by_quota.error is not None
    assert by_quota.error.reason == "QUOTA_EXCEEDED"


async def test_two_runs_share_the_day(system: System) -> None:
    system.services = CostlyServices()
    await tell(system, device_seconds_a_day=12)
    async with system.working(concurrency=1):
        both = [await create(system, "1"), await create(system, "2")]
        ended = [await system.until(run) for run in both]
    assert {run.state for run in ended} == {RunState.PAUSED}
    assert (await used(system.database)).device_seconds_a_day <= 12 + 2


async def test_what_belongs_to_no_tenant_has_no_quota(system: System) -> None:
    system.services = CostlyServices()
    async with system.working():
        assert (await system.until(await system.create())).state is RunState.SUCCEEDED
    assert await system.database.read(lambda c: c.execute(quotas.select(tenants)).all()) == []


# --- reruns and retries ----------------------------------------------------------------------------------------------
async def tried(system: System) -> tuple[Run, Trial]:
    """A run that has succeeded, and one of its trials."""
    run = await system.until(await create(system, "1"))
    return run, next(trial for trial in await system.trials(run) if trial.adapter)


async def test_reruns_count_among_a_runs_trials_and_need_device_seconds(system: System) -> None:
    async with system.working():
        run, trial = await tried(system)
        await tell(system, trials_in_run=run.progress.trials_total + 1)
        first = await system.database.write(reruns.add, change(trial.name, "one", TEAM))
        with pytest.raises(QuotaExceeded, match="trials_in_run"):
            await system.database.write(reruns.add, change(trial.name, "two", TEAM))
        again = await system.database.write(reruns.add, change(trial.name, "one", TEAM))
        assert again.name == first.name
        await tell(system, device_seconds_a_day=1)
        await spend(system, 1)
        with pytest.raises(QuotaExceeded, match="device_seconds_a_day"):
            await system.database.write(reruns.add, change(trial.name, "three", TEAM))


async def test_what_a_rerun_takes_is_the_tenants(system: System) -> None:
    system.services = CostlyServices()
    async with system.working():
        _, trial = await tried(system)
        before = (await used(system.database)).device_seconds_a_day
        rerun = await system.database.write(reruns.add, change(trial.name, "one", TEAM))
        while not (await system.database.read(trials.named, [rerun.name]))[0].state.terminal:
            await system.database.notifier.wait(system.database.notifier.subscribe(), seconds=0.02)
    assert (await used(system.database)).device_seconds_a_day == pytest.approx(before + 2)


async def test_a_retry_that_opens_the_run_again_is_checked(system: System) -> None:
    async def broken(call: str, what: str) -> None:
        if call == "evaluate":
            raise ValueError(what)

    system.services.before = broken
    async with system.working():
        run = await system.until(await create(system, "1"))
        failed = await system.trials(run)
    assert any(trial.error for trial in failed)
    await tell(system, runs_at_once=1)
    other = await create(system, "2")
    with pytest.raises(QuotaExceeded, match="runs_at_once"):
        await system.database.write(runs.retry, change(run.name, "again", TEAM), [])
    await system.database.write(runs.cancel, change(other.name, "c", TEAM))
    again, count = await system.database.write(runs.retry, change(run.name, "again", TEAM), [])
    assert (again.state, bool(count)) == (RunState.QUEUED, True)


async def test_a_trial_that_is_tried_again_is_charged_once(system: System) -> None:
    await spend(system, 7)
    await spend(system, -7)
    await spend(system, 8)
    assert (await used(system.database)).device_seconds_a_day == 8
