"""What a run would take: the counts of its own plan, at the rates of trials like its own; nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from controller.accept import accept
from controller.db import events, rates, reruns, tables
from controller.db.access import FULL_ACCESS
from controller.db.rates import DrivenRun, Rates, Taught, Took
from controller.db.runs import NewRun
from controller.report.estimate import estimate_run, expected_pace
from sealkit.config import RunConfig, parse_config
from sealkit.domains.base import Context
from sealkit.errors import InvalidConfig, UnknownPolicy
from sealkit.reports import Pace, RunEstimate
from sealkit.resources import Run
from sealkit.stats import spread
from sealkit.types import Usage
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, records, tiny_config
from tests.unit.controller.controller_system import System
from tests.unit.controller.rerun_fakes import ASKED, SAMPLED, TRAINED, TellingServices

SURE = {"must_beat_passage_only": False, "must_gain": False}


def accepted(**changes: Any) -> tuple[NewRun, list[Context]]:
    return accept(
        request_id="e",
        display_name="",
        config=tiny_config(**changes),
        records=records(),
        retention=(),
        plugins=(DOMAIN,),
    )


async def estimated(system: System, **changes: Any) -> RunEstimate:
    new, contexts = accepted(**changes)
    known = await system.database.read(rates.rates_for, FULL_ACCESS, new)
    scored = await system.database.read(rates.scored_like, FULL_ACCESS, new)
    return estimate_run(new, contexts, known, (DOMAIN,), scored)


async def measured(system: System, **changes: Any) -> Run:
    """A run of one round of which every self-edit is usable, timed at 100 seconds and half a device."""
    system.services = services = TellingServices()
    services.text = lambda context_id, index, seed: f"good edit {index} of {context_id}"
    run = await system.create(rounds=1, selection=SURE, **changes)
    async with system.working():
        run = await system.until(run)
    spent = 8 * 3.5 + 4 * 2.5
    values = {"active_seconds": 100.0, "spent_device_seconds": spent}
    await system.database.write(lambda c: c.execute(update(tables.runs).values(**values)) and None)
    return run


async def test_an_empty_record_gives_the_counts_and_says_so(system: System) -> None:
    estimate = await estimated(system)
    run = await system.create()
    assert estimate.trials == run.progress.trials_total
    assert (estimate.based_on, estimate.wall_seconds, estimate.usage) == (0, 0.0, Usage())
    assert DOMAIN in estimate.basis


async def test_the_same_run_again_is_estimated_as_it_was(system: System) -> None:
    run = await measured(system)
    trials = await system.trials(run)
    policies = await system.policies(run)
    taken = sum([*(t.usage for t in trials), *(p.usage for p in policies)], Usage())
    estimate = await estimated(system, rounds=1, selection=SURE)
    assert estimate.trials == len(trials)
    assert estimate.based_on == len(trials)
    assert estimate.usage.train_tokens == pytest.approx(taken.train_tokens, rel=0.01)
    assert estimate.usage.completion_tokens == pytest.approx(taken.completion_tokens, rel=0.05)
    assert "1 run of" in estimate.basis


def by_rates(rates: Rates, **changes: Any) -> RunEstimate:
    """The estimate of a run of one round, two contexts, three self-edits each and nothing else, unless changed."""
    plain = {"rounds": 1, "selection": SURE, "held_out": {"samples": 0}, "passage_only": False}
    new, contexts = accepted(**plain | changes)
    return estimate_run(new, contexts, rates, (DOMAIN,))


def known(
    *stages: Mapping[str, Usage], editor: str = "policy", queries: int = 6, writing: Mapping[str, Any] | None = None
) -> Rates:
    """Rates of trials that took this, in runs of 100 seconds of which 50 were the device's."""
    config = parse_config(tiny_config(editor=writing or {"k": 3}))
    return Rates(
        base_model="ab" * 32,
        runs=1,
        trials=tuple(Took(config, "policy", dict(taken), queries) for taken in stages),
        m_steps=(),
        kept=0.5,
        seconds=100.0,
        device_seconds=50.0,
        trials_done=len(stages),
    )


def test_training_grows_with_epochs_and_the_number_of_trials() -> None:
    rates = known({"train": TRAINED})
    assert by_rates(rates).usage.train_tokens == 6 * 40
    assert by_rates(rates, inner_loop={"optimisation": {"epochs": 30}}).usage.train_tokens == 3 * 6 * 40
    assert by_rates(rates, rounds=3).usage.train_tokens == 3 * 6 * 40
    assert by_rates(rates, editor={"k": 6}).usage.train_tokens == 2 * 6 * 40


def test_a_text_that_its_limit_ended_grows_with_the_limit_and_a_short_one_does_not() -> None:
    def written(rates: Rates, limit: int) -> int:
        return by_rates(rates, editor={"k": 3, "sampling": {"max_tokens": limit}}).usage.completion_tokens

    stopped = known({"generate": SAMPLED})
    assert (written(stopped, 512), written(stopped, 600), written(stopped, 3)) == (6 * 5, 6 * 5, 6 * 3)
    cut = known({"generate": SAMPLED}, writing={"k": 3, "sampling": {"max_tokens": 5}})
    assert (written(cut, 5), written(cut, 10)) == (6 * 5, 6 * 10)


def test_asking_grows_with_the_questions() -> None:
    evaluation = {"judge": "exact", "retention_limit": 8}
    rates = known({"evaluate": ASKED}, queries=6)
    assert by_rates(rates, evaluation=evaluation).usage.prompt_tokens == 6 * 30 * 2, "4 + 8 questions, not 6"


def test_passages_write_nothing_and_m_steps_teach_what_is_kept() -> None:
    rates = known({"generate": SAMPLED, "train": TRAINED})
    estimate = by_rates(rates, passage_only=True)
    assert estimate.trials == 8
    assert (estimate.usage.completion_tokens, estimate.usage.train_tokens) == (6 * 5, 8 * 40)
    step = Taught(parse_config(tiny_config()), Usage(train_tokens=100), examples=2)
    taught = by_rates(replace(rates, m_steps=(step,)), m_step={"optimisation": {"epochs": 4}})
    assert taught.usage.train_tokens == 6 * 40 + 3 * 50 * 2, "half of six kept, twice the epochs"


def test_wall_time_goes_by_the_device_and_by_trials_where_none_was_timed() -> None:
    assert by_rates(known({"train": TRAINED})).wall_seconds == pytest.approx(6 * 2.0 * 100 / 50)
    untimed = replace(known({"train": Usage(train_tokens=1)}, {"train": Usage(train_tokens=1)}), device_seconds=0.0)
    assert by_rates(untimed).wall_seconds == pytest.approx(6 * 100 / 2)


async def test_the_power_is_assumed_before_any_trial_and_measured_after(system: System) -> None:
    before = (await estimated(system, held_out={"samples": 2})).power
    assert before is not None
    assert (before.contexts, before.samples, before.measured) == (2, 2, False)
    assert before.deviation == pytest.approx((0.0625 + 0.0625 / 2) ** 0.5)
    run = await measured(system, held_out={"samples": 2})
    scores: dict[tuple[str, str], list[float]] = {}
    for trial in await system.trials(run):
        if trial.editor == "policy" and trial.accuracy is not None:
            scores.setdefault((trial.policy, trial.context_id), []).append(trial.accuracy)
    after = (await estimated(system, held_out={"samples": 2})).power
    assert after is not None
    assert after.measured
    variances = [
        spread([found for (writer, _), found in scores.items() if writer == policy])
        for policy in {writer for writer, _ in scores}
    ]
    between, within = (sum(column) / len(column) for column in zip(*filter(None, variances), strict=True))
    assert after.deviation == pytest.approx((between + within / 2) ** 0.5)
    for changes in ({"held_out": {"samples": 0}}, {"task": "adapt"}):
        assert (await estimated(system, **changes)).power is None


async def test_estimating_starts_nothing_and_refuses_what_a_run_refuses(system: System) -> None:
    await estimated(system)
    assert await system.database.read(lambda c: c.scalar(select(func.count()).select_from(tables.runs))) == 0
    with pytest.raises(UnknownPolicy):
        await estimated(system, start_policy="policies/nobody")
    with pytest.raises(InvalidConfig):
        await estimated(system, rounds=0)


async def test_other_domains_and_reruns_are_no_measure(system: System) -> None:
    run = await measured(system)
    trials = await system.trials(run)
    await system.database.write(reruns.add, change(next(t.name for t in trials if t.adapter), "rerun"))
    await system.database.write(lambda c: c.execute(update(tables.trials).values(state="succeeded")) and None)
    assert (await estimated(system)).based_on == len(trials)
    new, _ = accepted()
    other = new.changed(config=RunConfig())
    assert await system.database.read(rates.rates_for, FULL_ACCESS, other) is None


async def test_the_pace_comes_from_other_runs_of_the_same_domain_task_and_base_model(system: System) -> None:
    first = await measured(system)
    config, none = await earlier(system, first)
    assert expected_pace(config, none) is None, "a run is no measure of itself"
    run = await system.create(rounds=1, request_id="second")
    config, found = await earlier(system, run)
    timeline = await system.database.read(events.timeline, first.name.removeprefix("runs/"))
    assert expected_pace(config, found) == timeline.pace
    adapts = await system.create(task="adapt", request_id="third")
    assert (await earlier(system, adapts))[1] == []
    await system.database.write(
        lambda c: (
            c.execute(
                update(tables.policies).where(tables.policies.c.run_id == first.name[5:]).values(base_model="cd" * 32)
            )
            and None
        )
    )
    async with system.working():
        run = await system.until(run)
    assert (await earlier(system, run))[1] == [], "the earlier run was on another base model"


async def earlier(system: System, run: Run) -> tuple[RunConfig, list[DrivenRun]]:
    return await system.database.read(rates.driven_before, FULL_ACCESS, run.name.removeprefix("runs/"))


def test_the_pace_of_trials_is_scaled_to_the_settings() -> None:
    config = parse_config(tiny_config(inner_loop={"optimisation": {"epochs": 10}}))
    stages = {"train": Usage(device_seconds=3.0), "evaluate": Usage(device_seconds=1.0)}
    run = DrivenRun(
        Pace(start_seconds=30, trial_seconds=2, round_seconds=20), (Took(config, "policy", stages, queries=6),)
    )
    longer = parse_config(tiny_config(inner_loop={"optimisation": {"epochs": 20}}))
    wanted = Pace(start_seconds=30, trial_seconds=2 * (6 + 1) / (3 + 1), round_seconds=20)
    assert expected_pace(longer, [run]) == wanted
    assert expected_pace(config, [run]) == run.pace
