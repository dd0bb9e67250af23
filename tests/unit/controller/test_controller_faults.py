"""Nothing lost, nothing twice: processes that die, stand still or lose their queue, and the record afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from sealkit.errors import AdapterCorrupt
from sealkit.resources import Run, RunState, TrialFinished, TrialState
from tests.unit.controller.controller_system import System, science, until

SMALL = {"contexts_per_round": 1, "editor": {"k": 2}, "held_out": {"samples": 1}}


async def outcome(system: System, run: Run) -> tuple[str, str]:
    """Everything that must not depend on what happened on the way, without the run's own id."""
    run_id = run.name.removeprefix("runs/")
    policies = [p.model_dump(exclude={"create_time", "usage"}) for p in await system.policies(run)]
    rows = science(await system.trials(run))
    return str(rows).replace(run_id, "RUN"), str(policies).replace(run_id, "RUN")


async def assert_counted_once(system: System, run: Run) -> None:
    found = await system.trials(run)
    ended = Counter(e.kind.trial.name for e in await system.events(run) if isinstance(e.kind, TrialFinished))
    assert ended == {t.name: 1 for t in found}
    assert run.progress.trials_done == run.progress.trials_total == len(found)


async def killed_over_and_over(system: System, run: Run, writes: range, *, seed: int) -> int:
    """Works on a run until it has ended, in processes that each die after so many writes; returns how many died."""
    chance, kills = random.Random(seed), 0
    while not (await system.run(run)).state.terminal:
        async with system.working(writes=chance.choice(writes), lease=0.1) as database:
            ending = asyncio.create_task(system.until(run))
            dying = asyncio.create_task(database.died.wait())
            await asyncio.wait([ending, dying], return_when=asyncio.FIRST_COMPLETED)
            kills += dying.done()
            ending.cancel()
            dying.cancel()
    return kills


async def test_killed_over_and_over_it_ends_as_if_nothing_had_been(system: System) -> None:
    async with system.working():
        calm = await system.until(await system.create(request_id="calm", **SMALL))
    run = await system.create(request_id="shaken", **SMALL)
    kills = await killed_over_and_over(system, run, range(2, 30), seed=20261122)
    ended = await system.run(run)
    assert kills >= 3
    assert ended.state is RunState.SUCCEEDED
    await assert_counted_once(system, ended)
    assert await outcome(system, ended) == await outcome(system, calm)


async def test_a_wiped_queue_costs_time_only(system: System) -> None:
    async def before(call: str, what: str) -> None:
        if call == "sample" and system.services.calls["sample"] == 3:
            system.redis.dbs.clear()

    system.services.before = before
    async with system.working(concurrency=1):
        run = await system.until(await system.create())
    assert run.state is RunState.SUCCEEDED
    await assert_counted_once(system, run)


async def test_a_redis_that_is_away_delays_a_run(system: System) -> None:
    system.redis.connected = False
    async with system.working():
        run = await system.create(rounds=1)
        await system.until(run, lambda now: now.progress.stage.endswith("E-step"))
        system.redis.connected = True
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    await assert_counted_once(system, ended)


async def test_two_workers_share_a_run_and_one_drives_it(system: System) -> None:
    async with system.working(concurrency=2), system.working(concurrency=2):
        run = await system.until(await system.create())
    assert run.state is RunState.SUCCEEDED
    await assert_counted_once(system, run)
    assert system.services.calls["policy"] == 2


async def test_a_clean_stop_gives_trials_back_and_burns_no_attempt(system: System) -> None:
    gate = asyncio.Event()

    async def before(call: str, what: str) -> None:
        await gate.wait()

    system.services.before = before
    async with system.working(lease=60):
        run = await system.create(rounds=1, **SMALL | {"held_out": {"samples": 0}})
        await until(lambda: system.services.running == 2)
    assert {t.state for t in await system.trials(run)} == {TrialState.QUEUED}
    gate.set()
    async with system.working(lease=60):  # no lease to wait for: the first worker left
        ended = await system.until(run)
    assert {t.attempts for t in await system.trials(ended)} == {1}


async def test_a_trial_that_kills_its_worker_is_given_up_with_a_reason(system: System) -> None:
    run = await system.create(rounds=1, **SMALL)
    async with asyncio.timeout(20):
        while not (await system.run(run)).state.terminal:
            async with system.working(lease=0.1, max_deliveries=2) as database:

                async def before(call: str, what: str, database: object = database) -> None:
                    if call == "sample" and what == "c3":
                        database.writes_left = 0  # type: ignore[attr-defined]

                system.services.before = before
                ending = asyncio.create_task(system.until(run))
                dying = asyncio.create_task(_dead(database))
                await asyncio.wait([ending, dying], return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                dying.cancel()
    faults = {t.error.reason for t in await system.trials(run) if t.error}
    assert faults == {"DELIVERIES_EXHAUSTED"}


async def _dead(database: object) -> None:
    await until(lambda: database.writes_left == 0)  # type: ignore[attr-defined]


async def test_an_adapter_that_went_bad_is_made_anew(system: System) -> None:
    bad = Counter[str]()

    async def before(call: str, what: str) -> None:
        bad[call] += 1
        if call == "evaluate" and bad[call] <= 2:
            raise AdapterCorrupt("digest does not match")

    system.services.before = before
    async with system.working():
        run = await system.until(await system.create(rounds=1))
    assert run.state is RunState.SUCCEEDED
    assert not any(t.error for t in await system.trials(run))
    assert sum(t.attempts - 1 for t in await system.trials(run)) == 2
