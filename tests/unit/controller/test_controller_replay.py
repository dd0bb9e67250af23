"""A trial made again from its manifest: identical, or what differs; and it counts for nothing in its run."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, update

from controller.intake import REPLAYS
from controller.record import replays, runs, tables
from controller.record.reach import EVERYTHING
from controller.replay import compare
from controller.report import build_report
from sealkit.errors import AdapterNotFound, NotReplayable, UnknownTrial
from sealkit.resources import Replay, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.types import Outcome
from tests.unit.controller.acts import act
from tests.unit.controller.controller_system import System, science
from tests.unit.controller.replay_fakes import TellingServices


async def finished(system: System, services: TellingServices) -> tuple[Run, list[Trial]]:
    """A run that has ended, and its trials."""
    system.services = services
    run = await system.create(rounds=2)
    async with system.working():
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    return ended, await system.trials(ended)


async def replayed(system: System, name: str, request_id: str = "again") -> Replay:
    """The replay of a trial, made by a worker that is new to it."""
    started = await system.database.write(replays.add, act(name, request_id))
    async with system.working(max_deliveries=2):
        return await made(system, started.name)


async def made(system: System, name: str) -> Replay:
    async with asyncio.timeout(20):
        while True:
            replay = compare(*await system.database.read(replays.pair, EVERYTHING, name))
            if replay.trial.state.terminal:
                return replay
            await asyncio.sleep(0.02)


def succeeded(found: list[Trial]) -> Trial:
    """A self-edit that trained, of the first round."""
    return next(t for t in found if t.state is TrialState.SUCCEEDED and t.editor == "policy")


async def test_a_replay_on_the_same_services_is_identical_and_everything_was_made_anew(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    before = services.calls.copy()
    replay = await replayed(system, succeeded(found).name)
    assert replay.identical, replay.differences
    assert replay.differences == ()
    assert replay.trial.phase is TrialPhase.REPLAY
    assert replay.original == replay.trial.replay_of == succeeded(found).name
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
    replay = await replayed(system, name)
    assert replay.identical, replay.differences


async def test_what_differs_is_named_field_by_field(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    trial = succeeded(found)
    services.weights, services.build = "others", {"torch": "2.14", "threads": "1"}
    wrong = f"{trial.context_id}/0"
    was = services.outcome
    services.outcome = lambda subject, query: Outcome.UNGRADED if query == wrong and subject else was(subject, query)
    replay = await replayed(system, trial.name)
    told = {d.field: (d.recorded, d.replayed) for d in replay.differences}
    assert not replay.identical
    assert told["versions.torch"] == ("2.13", "2.14")
    assert told["weights_sha256"][0] != told["weights_sha256"][1]
    assert told[f"verdicts[{wrong}]"][1] == "ungraded: yes"
    assert {"completion", "spec", "adapter", "versions.threads"}.isdisjoint(told)
    assert list(told).index("weights_sha256") < list(told).index(f"verdicts[{wrong}]"), "causes come first"


async def test_a_text_that_came_out_otherwise_is_shown_where_it_departs(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    services.text = lambda context_id, index, seed: "good edit, but another one"
    replay = await replayed(system, succeeded(found).name)
    assert replay.differences[0].field == "completion"
    assert replay.differences[0].replayed.startswith("good edit, but another")
    assert {"spec", "adapter"} <= {d.field for d in replay.differences}


async def test_a_replay_counts_for_nothing_in_its_run(system: System) -> None:
    run, found = await finished(system, TellingServices())
    events = await system.events(run)
    policies = await system.policies(run)
    report = build_report(run, found, policies)
    await replayed(system, succeeded(found).name)
    assert await system.run(run) == run
    assert await system.events(run) == events
    assert science(await system.trials(run)) == science(found)
    assert build_report(run, await system.trials(run), policies) == report


async def test_the_end_of_a_run_and_its_resumption_leave_its_replays_alone(system: System) -> None:
    run, found = await finished(system, TellingServices())
    started = await system.database.write(replays.add, act(succeeded(found).name, "replay"))
    await system.database.write(
        lambda c: c.execute(update(tables.runs).values(state=RunState.RUNNING, end_time=None)) and None
    )
    await system.database.write(runs.cancel, act(run.name, "c"))
    replay, _ = await system.database.read(replays.pair, EVERYTHING, started.name)
    assert replay.state is TrialState.QUEUED


async def test_a_replay_whose_message_is_lost_is_made_all_the_same(system: System) -> None:
    _, found = await finished(system, TellingServices())
    started = await system.database.write(replays.add, act(succeeded(found).name, "replay"))
    queue = system.queue("observer")
    hold = asyncio.Event()

    async def held(call: str, what: str) -> None:
        if call == "sample":
            await hold.wait()

    system.services.before = held
    async with system.working():
        while REPLAYS.run_id not in await queue.lanes():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await queue.drop([REPLAYS.run_id])
    hold.set()
    async with system.working():
        assert (await made(system, started.name)).identical
    await queue.close()


async def test_the_same_request_makes_one_replay_and_a_replay_is_of_the_original(system: System) -> None:
    _, found = await finished(system, TellingServices())
    name = succeeded(found).name
    first = await system.database.write(replays.add, act(name, "one"))
    assert (await system.database.write(replays.add, act(name, "one"))).name == first.name
    assert (await system.database.write(replays.add, act(name, "two"))).name != first.name
    third = await system.database.write(replays.add, act(first.name, "three"))
    assert third.replay_of == name


async def test_what_cannot_be_made_again_is_refused_with_its_reason(system: System) -> None:
    _, found = await finished(system, TellingServices())
    name, policy = succeeded(found).name, succeeded(found).policy
    with pytest.raises(UnknownTrial):
        await system.database.write(replays.add, act(f"{name}-nobody", ""))
    with pytest.raises(UnknownTrial, match="is no replay"):
        await system.database.read(replays.pair, EVERYTHING, name)
    await system.database.write(lambda c: c.execute(delete(tables.policies).where(tables.policies.c.name == policy)))
    with pytest.raises(NotReplayable, match=policy):
        await system.database.write(replays.add, act(name, ""))
    await system.database.write(lambda c: c.execute(update(tables.trials).values(manifest={})))
    with pytest.raises(NotReplayable, match="without a manifest"):
        await system.database.write(replays.add, act(name, ""))


async def test_a_policy_that_the_store_lost_ends_the_replay_with_that_reason(system: System) -> None:
    services = TellingServices()
    _, found = await finished(system, services)
    trial = next(t for t in found if t.manifest == {} and not t.policy.endswith("-0") and t.editor == "policy")
    adapter = next(p.adapter for p in await system.policies(await _run(system, trial)) if p.name == trial.policy)
    assert adapter is not None

    async def gone(call: str, what: str) -> None:
        if call == "sample":
            raise AdapterNotFound(f"adapter {adapter.digest} is not in the store")

    services.before = gone
    replay = await replayed(system, trial.name)
    assert replay.trial.error is not None
    assert replay.trial.error.reason == "NOT_REPLAYABLE"
    assert replay.differences[0].field == "state"


async def _run(system: System, trial: Trial) -> Run:
    return await system.database.read(runs.get, EVERYTHING, trial.name.split("/")[1])
