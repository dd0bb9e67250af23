"""What must hold after any chaos: every trial ended, none missing, none counted twice, all sums equal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealkit.client import AsyncSealClient
from sealkit.errors import Unavailable
from sealkit.resources import Event, Run, RunState, Trial, TrialFinished
from sealkit.types import Usage
from tests.integration.controller.test_controller_processes import up
from tests.unit.controller.controller_fakes import RETENTION, records, tiny_config
from tests.unit.controller.controller_system import science

HELD_OUT = 2
K = 5


def sized(trials: int) -> dict[str, Any]:
    """Changes to the config, and so many contexts, that make a run of two rounds with at least so many trials: k
    self-edits and a passage for each context and round, beside those of the held-out contexts."""
    contexts = -(-trials // (2 * (K + 1)))
    return {"contexts_per_round": contexts, "editor": {"k": K}, "rounds": 2}


async def begin(client: AsyncSealClient, request_id: str, trials: int, **changes: Any) -> Run:
    config = tiny_config(**sized(trials) | changes)
    contexts = records(train=config["contexts_per_round"], held_out=HELD_OUT)
    await up(client)
    return await client.create_run(config, contexts, RETENTION, display_name="chaos", request_id=request_id)


async def watched(client: AsyncSealClient, run: Run, found: list[Event]) -> list[Event]:
    """Every event of the run, added to `found` as it comes, by one watcher that comes back with its cursor whenever the
    API was away for longer than the client waits."""
    while True:
        try:
            async for event in client.watch_run(run.name, found[-1].cursor if found else ""):
                found.append(event)
            return found
        except Unavailable:
            await asyncio.sleep(0.2)


async def findings(client: AsyncSealClient, run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Any]]:
    """What must be the same however a run went: of its trials, its policies, its report's rows. Times, counts of
    retries and the run's id are left out."""
    policies = [p async for p in client.list_policies() if p.name.startswith(f"policies/{run.name[5:]}-")]
    rows = science([trial async for trial in client.list_trials(run.name)])
    versions = [p.model_dump(exclude={"create_time", "usage"}) for p in policies]
    report = await client.report(run.name)
    return _unnamed(run, rows), _unnamed(run, versions), _unnamed(run, list(report.rows))


def _unnamed(run: Run, found: list[Any]) -> list[Any]:
    return [str(one).replace(run.name[5:], "RUN") for one in found]


async def assert_exact(client: AsyncSealClient, name: str, events: list[Event]) -> list[Trial]:
    """The run succeeded, and record, events, progress and report count the same trials, each once."""
    run, found = await client.get_run(name), [trial async for trial in client.list_trials(name)]
    assert run.state is RunState.SUCCEEDED, run
    names = [trial.name for trial in found]
    assert len(set(names)) == len(names)
    assert all(trial.state.terminal for trial in found)
    failed = [(trial.name, trial.error) for trial in found if trial.error]
    assert not failed, failed

    assert [event.cursor for event in events] == [str(at + 1) for at in range(len(events))]
    finished = [event for event in events if isinstance(event.kind, TrialFinished)]
    assert sorted(event.kind.trial.name for event in finished) == sorted(names)
    assert [event.progress.trials_done for event in finished] == list(range(1, len(names) + 1))
    assert run.progress.trials_done == run.progress.trials_total == len(names)

    report = await client.report(name)
    assert sum(report.trial_counts.values()) == len(names)
    assert report.kept == sum(trial.selected for trial in found)
    summed = sum([one.usage for one in (*report.policies, *found)], Usage())
    assert report.usage.model_dump() == pytest.approx(summed.model_dump())  # but for the order of the sum
    return found
