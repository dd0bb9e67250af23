"""Runs and trials that another version stored: shown, reported, and taken up only where nothing of them is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from controller.accept import accept
from controller.db import attempts, events, policies, rates, reruns, runs, tables, trials
from controller.db.access import FULL_ACCESS
from controller.db.attempts import Untaken
from controller.db.database import Database
from controller.db.manifest import read_manifest
from controller.service import _report
from sealkit.config import RunConfig, parse_config
from sealkit.errors import ConfigOutdated, NotReproducible
from sealkit.names import run_id_of
from sealkit.resources import PolicyTrained, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.stored_config import StoredConfig, read_stored_config
from sealkit.types import AdapterRef
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, manifest, records, tiny_config
from tests.unit.controller.controller_system import System
from tests.unit.controller.rerun_fakes import TellingServices
from tests.unit.controller.test_controller_estimate import measured

OF_0_1: dict[str, Any] = json.loads((Path(__file__).parent / "config_of_0_1.json").read_text())
OF_LATER = OF_0_1 | {"curriculum": {"order": "easy first"}, "editor": OF_0_1["editor"] | {"batch": 2}}
UNREAD = ("curriculum", "editor.batch")


# --- configs ----------------------------------------------------------------------------------------------------------
def test_a_config_of_the_first_release_is_read_in_full_under_todays_names() -> None:
    stored = read_stored_config(OF_0_1)
    assert stored.unread == ()
    evaluation = stored.config.evaluation
    assert (evaluation.early_stopping_confidence, evaluation.early_stopping_interval) == (0.9, 2)
    assert stored.config.adapt.commit == "join"
    assert stored.config.inner_loop.lora.target_modules == ("q_proj", "v_proj")
    assert stored.in_full("runs/a") == stored.config


def test_keys_that_this_version_does_not_have_are_left_out_and_named() -> None:
    stored = read_stored_config(OF_LATER)
    assert sorted(stored.dropped) == sorted(UNREAD)
    assert stored.config == read_stored_config(OF_0_1).config
    with pytest.raises(ConfigOutdated, match=r"runs/a.*start a new run") as caught:
        stored.in_full("runs/a")
    assert all(key in caught.value.message for key in UNREAD)


def test_a_value_that_is_no_longer_valid_gives_way_to_the_default_and_is_named() -> None:
    editor = OF_0_1["editor"] | {"k": 0, "arms": ["policy", 5, 6]}
    stored = read_stored_config(OF_0_1 | {"editor": editor, "reward": "plain"})
    assert sorted(stored.invalid) == ["editor.arms", "editor.k", "reward"]
    assert stored.dropped == ()
    assert (stored.config.editor.k, stored.config.editor.arms) == (5, ("policy",))
    assert stored.config.editor.sampling.max_tokens == 512


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
section = st.sampled_from([*RunConfig.model_fields, "curriculum"])
inner_key = st.sampled_from(["k", "sampling", "arms", "optimisation", "race_wave", "commit", "editors", "other"])


@given(st.dictionaries(section, json_value | st.dictionaries(inner_key, json_value, max_size=3), max_size=5))
def test_whatever_is_stored_is_read_and_what_is_not_is_named(raw: dict[str, Any]) -> None:
    stored = read_stored_config(raw)
    if not stored.unread and "evaluation" not in raw and "adapt" not in raw:  # the sections with names of old
        assert stored.config == parse_config(raw)
    assert read_stored_config(stored.config.model_dump(mode="json")) == StoredConfig(stored.config)


# --- runs -------------------------------------------------------------------------------------------------------------
async def store(database: Database, run: Run, config: Mapping[str, Any]) -> None:
    """Puts another version's config in the place of the run's own."""
    of_run = tables.runs.c.run_id == run_id_of(run.name)
    await database.write(lambda c: c.execute(update(tables.runs).where(of_run).values(config=config)) and None)


async def finished(system: System, **changes: Any) -> Run:
    run = await system.create(**changes)
    async with system.working():
        return await system.until(run)


@pytest.mark.parametrize(
    ("config", "unread"),
    [(OF_0_1, ()), (OF_LATER, UNREAD), (OF_0_1 | {"rounds": "two"}, ("rounds",)), (OF_0_1 | {"cost": 5}, ("cost",))],
)
async def test_a_run_of_another_version_is_listed_shown_and_reported(
    system: System, config: dict[str, Any], unread: tuple[str, ...]
) -> None:
    run = await finished(system, task="adapt")
    await store(system.database, run, config)
    listed = (await system.database.read(runs.page, FULL_ACCESS, 10, "")).items
    shown = await system.run(run)
    assert listed == [shown]
    assert sorted(shown.unread_config) == sorted(unread)
    assert shown.config == config, "as it was stored"
    report, _, _ = await system.database.read(_report, FULL_ACCESS, run_id_of(run.name))
    assert report.continual is not None, "it was an adaptation"
    assert report.cost.currency == ("" if "cost" in unread else "EUR")
    assert sum(report.trial_counts.values()) == run.progress.trials_done


async def test_a_run_whose_config_is_not_read_in_full_does_not_go_on(system: System) -> None:
    run = await finished(system)
    rerun_of = (await system.trials(run))[0].name
    await store(system.database, run, OF_LATER)
    failed = {"state": TrialState.FAILED, "phase": TrialPhase.HELD_OUT}
    of_trial = tables.trials.c.name == rerun_of
    await system.database.write(lambda c: c.execute(update(tables.trials).where(of_trial).values(**failed)) and None)
    await system.database.write(lambda c: c.execute(update(tables.runs).values(state=RunState.PAUSED)) and None)
    for work, *more in ((runs.resume,), (runs.retry, [])):
        with pytest.raises(ConfigOutdated, match=r"editor\.batch"):
            await system.database.write(work, change(run.name, "again"), *more)
    with pytest.raises(ConfigOutdated):
        await system.database.write(reruns.add, change(rerun_of, "rerun"))
    assert (await system.run(run)).state is RunState.PAUSED


async def test_one_that_was_under_way_when_the_version_changed_fails_with_the_reason(system: System) -> None:
    run = await system.create()
    await store(system.database, run, OF_LATER)
    async with system.working():
        ended = await system.until(run)
    assert ended.error is not None
    assert (ended.state, ended.error.reason) == (RunState.FAILED, "CONFIG_OUTDATED")
    assert await system.trials(run) == []


async def test_a_run_of_the_first_release_goes_on(system: System) -> None:
    run = await system.create()
    await store(system.database, run, OF_0_1)
    async with system.working():
        ended = await system.until(run)
    assert ended.state is RunState.SUCCEEDED
    assert all(trial.phase is TrialPhase.E_STEP for trial in await system.trials(run)), "it is an adaptation"


async def test_one_bad_config_spoils_nobodys_estimate(system: System) -> None:
    first = await measured(system)
    second = await system.create(request_id="r2", rounds=1)
    async with system.working():
        await system.until(second)
    new, _ = accept(
        request_id="e", display_name="", config=tiny_config(), records=records(), retention=RETENTION, plugins=(DOMAIN,)
    )
    before = await system.database.read(rates.rates_for, FULL_ACCESS, new)
    await store(system.database, second, tiny_config(rounds=[], inner_loop={"optimisation": {"epochs": "many"}}))
    after = await system.database.read(rates.rates_for, FULL_ACCESS, new)
    assert before is not None
    assert after is not None
    assert (before.runs, after.runs) == (2, 1)
    assert len(after.trials) == len(await system.trials(first))
    await store(system.database, first, tiny_config(rounds=-1))
    assert await system.database.read(rates.rates_for, FULL_ACCESS, new) is None


# --- what trials, policies and events hold ----------------------------------------------------------------------------
def with_more(stored: dict[str, Any]) -> dict[str, Any]:
    """What another version might have stored: an adapter's folder too, say."""
    return {**stored, "uri": "file:///store/ab", "later": {"x": 1}}


async def test_trials_policies_and_events_of_another_version_are_read(system: System) -> None:
    run = await finished(system, rounds=1)
    policy, of_run = (await system.policies(run))[-1], run_id_of(run.name)
    assert policy.adapter is not None

    def rewrite(connection: Any) -> None:
        for table, key in ((tables.trials, tables.trials.c.name), (tables.policies, tables.policies.c.name)):
            for row in connection.execute(select(key, table.c.adapter).where(table.c.adapter.is_not(None))).all():
                connection.execute(update(table).where(key == row.name).values(adapter=with_more(row.adapter)))
        table = tables.events
        for row in connection.execute(select(table.c.sequence, table.c.body).where(table.c.kind == "PolicyTrained")):
            body = with_more(row.body)
            body["policy"]["adapter"] = with_more(body["policy"]["adapter"])
            connection.execute(update(table).where(table.c.sequence == row.sequence).values(body=body))

    before = await system.trials(run), await system.policies(run), await system.events(run)
    await system.database.write(rewrite)
    assert (await system.trials(run), await system.policies(run), await system.events(run)) == before
    assert await system.database.read(policies.get, FULL_ACCESS, policy.name) == policy
    found, _ = await system.database.read(events.after, FULL_ACCESS, of_run, "", limit=1000)
    assert any(isinstance(event.kind, PolicyTrained) for event in found)


def test_a_manifest_of_another_version_is_read_without_what_is_unknown() -> None:
    policy = manifest().instructions.policy.changed(adapter=AdapterRef(digest="ab" * 32))
    own = manifest().changed(instructions=manifest().instructions.changed(policy=policy))
    stored = own.model_dump(mode="json")
    stored["instructions"]["policy"]["adapter"] = with_more(stored["instructions"]["policy"]["adapter"])
    stored["instructions"]["sampling"]["top_k"] = 5
    stored["place"] = "elsewhere"
    assert read_manifest("t", stored) == own
    assert read_manifest("t", {}) is None


async def test_a_trial_whose_manifest_lacks_what_makes_it_is_not_made_again(system: System) -> None:
    system.services = TellingServices()
    run = await finished(system, rounds=1)
    name = next(t.name for t in await system.trials(run) if t.state is TrialState.SUCCEEDED)
    queued = await system.database.write(reruns.add, change(name, "early"))
    unreadable = {"instructions": {"editor": "policy"}, "found": {}}
    await system.database.write(lambda c: c.execute(update(tables.trials).values(manifest=unreadable)) and None)
    with pytest.raises(NotReproducible, match=r"cannot read its .*instructions\.policy"):
        await system.database.write(reruns.add, change(name, "late"))
    taken = await system.database.write(attempts.take, queued.name, "w", previous=None, max_deliveries=3)
    assert taken is Untaken.UNREADABLE
    ended: Trial = await system.database.read(trials.get, FULL_ACCESS, queued.name)
    assert ended.error is not None
    assert (ended.state, ended.error.reason) == (TrialState.FAILED, "NOT_REPRODUCIBLE")
    assert name in ended.error.message
