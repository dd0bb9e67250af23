"""A trial made again from its manifest: identical, or what differs; and it counts for nothing in its run."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, update

from controller.db import reruns, runs, tables, trials
from controller.db.access import FULL_ACCESS
from controller.report.run import build_report
from controller.trial.dispatcher import RERUNS
from controller.trial.rerun import compare
from sealkit.config import CostConfig
from sealkit.errors import AdapterNotFound, NotReproducible, UnknownTrial
from sealkit.reports import Rerun
from sealkit.resources import Run, RunState, Trial, TrialPhase, TrialState
from sealkit.types import Outcome
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System, science
from tests.unit.controller.rerun_fakes import TellingServices


async def finished(system: System, services: TellingServices) -> tuple[Run, list[Trial]]:
    """A run that has ended, and its trials."""
    system.services = services
    run = await system.create(rounds=2)
    async with system.working():
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    return ended, await system.trials(ended)


async def make_again(system: System, name: str, request_id: str = "again") -> Rerun:
    """The rerun of a trial, made by a worker that is new to it."""
    started = await system.database.write(reruns.add, change(name, request_id))
    async with system.working(max_deliveries=2):
        return await made(system, started.name)


async def made(system: System, name: str) -> Rerun:
    async with asyncio.timeout(20):
        while True:
            rerun = compare(*await system.database.read(reruns.pair, FULL_ACCESS, name))
            if rerun.trial.state.terminal:
                return rerun
            await asyncio.sleep(0.02)


def succeeded(found: list[Trial]) -> Trial:
    """A self-edit that trained, of the first round."""
    return next(t for t in found if t.state is TrialState.SUCCEEDED and t.editor == "policy")


async def test_a_rerun_on_the_same_services_is_identical_and_everything_was_made_anew(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    before = services.calls.copy()
    rerun = await make_again(system, succeeded(found).name)
    assert rerun.identical, rerun.differences
    assert rerun.differences == ()
    assert rerun.trial.phase is TrialPhase.RERUN
    assert rerun.original == rerun.trial.rerun_of == succeeded(found).name
    assert {call: services.calls[call] - before[call] for call in ("sample", "train", "evaluate")} == {
        "sample": 1, "train": 1, "evaluate": 1
    }  # fmt: skip
    assert (services.retrained, services.fresh) == (1, 1)


@pytest.mark.parametrize("which", ["passage_only", "rejected", "later round"])
async def test_every_kind_of_trial_can_be_made_again(system: System, which: str) -> None:
    _, found = await finished(system, TellingServices())
    name = next(
        trial.name
        for trial in found
        if {
            "passage_only": trial.editor == "passage_only",
            "rejected": trial.state is TrialState.REJECTED,
            "later round": not trial.policy.endswith("-0") and trial.state is TrialState.SUCCEEDED,
        }[which]
    )
    rerun = await make_again(system, name)
    assert rerun.identical, rerun.differences


async def test_what_differs_is_named_field_by_field(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    trial = succeeded(found)
    services.weights, services.build = "others", {"torch": "2.14", "threads": "1"}
    wrong = f"{trial.context_id}/0"
    was = services.outcome
    services.outcome = lambda subject, query: Outcome.UNGRADED if query == wrong and subject else was(subject, query)
    rerun = await make_again(system, trial.name)
    told = {d.field: (d.recorded, d.rerun) for d in rerun.differences}
    assert not rerun.identical
    assert told["versions.torch"] == ("2.13", "2.14")
    assert told["weights_sha256"][0] != told["weights_sha256"][1]
    assert told[f"verdicts[{wrong}]"][1] == "ungraded: yes"
    assert {"completion", "spec", "adapter", "versions.threads"}.isdisjoint(told)
    assert list(told).index("weights_sha256") < list(told).index(f"verdicts[{wrong}]"), "causes come first"


async def test_a_text_that_came_out_otherwise_is_shown_where_it_departs(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    services.text = lambda context_id, index, seed: "good edit, but another one"
    rerun = await make_again(system, succeeded(found).name)
    assert rerun.differences[0].field == "completion"
    assert rerun.differences[0].rerun.startswith("good edit, but another")
    assert {"spec", "adapter"} <= {d.field for d in rerun.differences}


async def test_what_the_version_of_a_trial_did_not_record_is_no_difference(system: System) -> None:
    _, found = await finished(system, TellingServices())
    name = succeeded(found).name
    manifest = (await system.database.read(trials.get, FULL_ACCESS, name)).manifest
    del manifest["found"]["final_loss"]
    of_trial = update(tables.trials).where(tables.trials.c.name == name).values(manifest=manifest)
    await system.database.write(lambda connection: connection.execute(of_trial))
    rerun = await make_again(system, name)
    assert rerun.trial.manifest["found"]["final_loss"] == 1.0
    assert rerun.identical, rerun.differences


async def test_a_rerun_counts_for_nothing_in_its_run(system: System) -> None:
    run, found = await finished(system, TellingServices())
    events = await system.events(run)
    policies = await system.policies(run)
    report = build_report(run, found, policies, CostConfig())
    await make_again(system, succeeded(found).name)
    assert await system.run(run) == run
    assert await system.events(run) == events
    assert science(await system.trials(run)) == science(found)
    assert build_report(run, await system.trials(run), policies, CostConfig()) == report


async def test_the_end_of_a_run_and_its_resumption_leave_its_reruns_alone(system: System) -> None:
    run, found = await finished(system, TellingServices())
    started = await system.database.write(reruns.add, change(succeeded(found).name, "rerun"))
    await system.database.write(
        lambda c: c.execute(update(tables.runs).values(state=RunState.RUNNING, end_time=None)) and None
    )
    await system.database.write(runs.cancel, change(run.name, "c"))
    rerun, _ = await system.database.read(reruns.pair, FULL_ACCESS, started.name)
    assert rerun.trial.state is TrialState.QUEUED


async def test_a_rerun_whose_message_is_lost_is_made_all_the_same(system: System) -> None:
    _, found = await finished(system, TellingServices())
    started = await system.database.write(reruns.add, change(succeeded(found).name, "rerun"))
    queue = system.queue("observer")
    hold = asyncio.Event()

    async def held(call: str, what: str) -> None:
        if call == "sample":
            await hold.wait()

    system.services.before = held
    async with system.working():
        while RERUNS.run_id not in await queue.streams():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await queue.drop([RERUNS.run_id])
    hold.set()
    async with system.working():
        assert (await made(system, started.name)).identical
    await queue.close()


async def test_the_same_request_makes_one_rerun_and_a_rerun_is_of_the_original(system: System) -> None:
    _, found = await finished(system, TellingServices())
    name = succeeded(found).name
    first = await system.database.write(reruns.add, change(name, "one"))
    assert (await system.database.write(reruns.add, change(name, "one"))).name == first.name
    assert (await system.database.write(reruns.add, change(name, "two"))).name != first.name
    third = await system.database.write(reruns.add, change(first.name, "three"))
    assert third.rerun_of == name


async def test_what_cannot_be_made_again_is_refused_with_its_reason(system: System) -> None:
    _, found = await finished(system, TellingServices())
    name, policy = succeeded(found).name, succeeded(found).policy
    with pytest.raises(UnknownTrial):
        await system.database.write(reruns.add, change(f"{name}-nobody", ""))
    with pytest.raises(UnknownTrial, match="is not a rerun"):
        await system.database.read(reruns.pair, FULL_ACCESS, name)
    await system.database.write(lambda c: c.execute(delete(tables.policies).where(tables.policies.c.name == policy)))
    with pytest.raises(NotReproducible, match=policy):
        await system.database.write(reruns.add, change(name, ""))
    await system.database.write(lambda c: c.execute(update(tables.trials).values(manifest={})))
    with pytest.raises(NotReproducible, match="without a manifest"):
        await system.database.write(reruns.add, change(name, ""))


async def test_a_policy_that_the_store_lost_ends_the_rerun_with_that_reason(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    trial = next(t for t in found if t.manifest == {} and not t.policy.endswith("-0") and t.editor == "policy")
    adapter = next(p.adapter for p in await system.policies(await _run(system, trial)) if p.name == trial.policy)
    assert adapter is not None

    async def gone(call: str, what: str) -> None:
        if call == "sample":
            raise AdapterNotFound("it is not in the store", metadata={"digest": adapter.digest})

    services.before = gone
    rerun = await make_again(system, trial.name)
    assert rerun.trial.error is not None
    assert rerun.trial.error.reason == "NOT_REPRODUCIBLE"
    assert rerun.differences[0].field == "state"


async def _run(system: System, trial: Trial) -> Run:
    return await system.database.read(runs.get, FULL_ACCESS, trial.name.split("/")[1])
