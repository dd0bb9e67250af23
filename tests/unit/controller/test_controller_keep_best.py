"""Keeping the best policy: `gate.held_out` compares each new one with the best so far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any, Literal

import pytest

from controller.db import aliases, tables, trials
from controller.db.access import FULL_ACCESS
from controller.report.run import build_report
from controller.rules.gate import compared
from sealkit.config import CostConfig, GateConfig
from sealkit.errors import InvalidConfig
from sealkit.reports import RunReport
from sealkit.resources import (
    GateState,
    PolicyTrained,
    PolicyVersion,
    RoundFinished,
    Run,
    RunState,
    Trial,
    TrialPhase,
    TrialState,
)
from sealkit.types import Outcome, Policy, Progress, TrainingResult, TrainingSpec
from tests.unit.controller.controller_fakes import FakeServices, graded, records
from tests.unit.controller.controller_system import System
from tests.unit.controller.test_controller_faults import assert_counted_once, killed_over_and_over, outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "rounds": 3,
    "contexts_per_round": 1,
    "selection": {"must_beat_passage_only": False, "must_gain": False},
}


class Scripted(FakeServices):
    """On held-out contexts (c4, c5 …) the self-edits of the i-th policy answer `right[i]` of the four questions right;
    those on every other context one more."""

    def __init__(self, right: Sequence[int]) -> None:
        super().__init__()
        self.right = right
        self.made: list[str] = ["base"]
        self.writers: dict[str, int] = {}
        self.outcome = self._outcome

    async def train_policy(self, *args: Any, **kwargs: Any) -> AsyncIterator[Progress | TrainingResult]:
        async for update in super().train_policy(*args, **kwargs):
            if isinstance(update, TrainingResult) and (writer := update.adapter.digest[:6]) not in self.made:
                self.made.append(writer)
            yield update

    async def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        async for update in super().train_adapter(policy, spec, owner=owner, retrain=retrain):
            if isinstance(update, TrainingResult):
                writer = policy.adapter.digest[:6] if policy.adapter else "base"
                self.writers[update.adapter.digest] = self.made.index(writer)
            yield update

    def _outcome(self, subject: str, query_id: str) -> Outcome:
        context, number = query_id.split("/")
        if subject not in self.writers or context < "c4":
            return graded(subject, query_id)
        right = self.right[self.writers[subject]] + (context >= "c6")
        return Outcome.CORRECT if int(number) < right else Outcome.INCORRECT


def scripted(system: System, right: Sequence[int]) -> None:
    system.services = Scripted(right)
    system.services.text = lambda context, index, seed: f"good edit {index} of {context} by {seed}"


async def ended(system: System, rule: str, **changes: Any) -> Run:
    gate = {"held_out": rule, "alias": "main"}
    async with system.working():
        run = await system.create(dataset=records(4, 4), gate=gate, **CONFIG | changes)
        run = await system.until(run)
    assert run.state is RunState.SUCCEEDED
    await assert_counted_once(system, run)
    return run


async def report_of(system: System, run: Run) -> RunReport:
    return build_report(run, await system.trials(run), await system.policies(run), CostConfig())


async def test_a_policy_that_got_worse_is_not_the_next_one(system: System) -> None:
    scripted(system, [0, 2, 1, 3])
    run = await ended(system, "not_worse", m_step={"start_from": "base"})
    start, better, worse, best = await system.policies(run)
    assert [p.gate for p in (start, better, worse, best)] == [
        GateState.PASSED, GateState.PASSED, GateState.REFUSED, GateState.PASSED
    ]  # fmt: skip
    assert [p.held_out_accuracy for p in (start, better, worse, best)] == [0.125, 0.625, 0.375, 0.875]
    assert "-0.250 [-0.250, -0.250] on 4 held-out contexts" in worse.gate_reason
    found = await system.trials(run)
    writers = {t.round: t.policy for t in found if t.phase is TrialPhase.E_STEP}
    assert writers == {0: start.name, 1: better.name, 2: better.name}
    assert (worse.parent, best.parent) == (better.name, better.name)
    assert {t.round for t in found if t.name in best.trials} == {0, 1, 2}, "what round 1 kept is not lost"
    kinds = [event.kind for event in await system.events(run)]
    assert [k.policy for k in kinds if isinstance(k, RoundFinished)] == [better.name, better.name, best.name]
    assert [k.policy.held_out_accuracy for k in kinds if isinstance(k, PolicyTrained)] == [0.625, 0.375, 0.875]
    alias = await system.database.read(aliases.get, FULL_ACCESS, "main")
    assert [change.policy for change in alias.history] == [best.name, better.name]


async def test_the_run_ends_with_the_best_and_the_report_shows_the_curve(system: System) -> None:
    scripted(system, [0, 2, 1, 1])
    run = await ended(system, "not_worse")
    report = await report_of(system, run)
    names = [policy.name for policy in await system.policies(run)]
    assert [(point.policy, point.adopted) for point in report.curve] == list(
        zip(names, [True, True, False, False], strict=True)
    )
    assert [point.accuracy.mean for point in report.curve if point.accuracy] == [0.125, 0.625, 0.375, 0.375]
    assert [point.gain.mean for point in report.curve if point.gain] == [0.5, -0.25, -0.25]
    assert [bool(point.reason) for point in report.curve] == [False, False, True, True]
    assert report.rl_gain is not None
    assert report.rl_gain.mean == 0.5, "of the best, not of the last"
    assert "θ_1 minus θ_0 is +0.500" in report.verdict
    assert "chosen on these contexts" in report.verdict


def decided(rule: Literal["not_worse", "better"], before: Sequence[float], after: Sequence[float]) -> PolicyVersion:
    """The decision on a policy with these scores on held-out contexts; `before`: those of the best so far."""
    theta, made = (PolicyVersion(name=name, run="runs/r", version=0, create_time=NOW) for name in ("best", "new"))
    scored = [
        Trial(name="", round=0, state=TrialState.SUCCEEDED, phase=TrialPhase.HELD_OUT, context_id=str(context),
              editor="policy", index=0, policy=policy.name, accuracy=score, create_time=NOW)
        for policy, scores in ((theta, before), (made, after))
        for context, score in enumerate(scores)
    ]  # fmt: skip
    return compared(theta, made, scored, GateConfig(held_out=rule))


def test_not_worse_goes_by_the_mean_and_better_by_the_interval() -> None:
    equal, higher, surely = [0.4, 0.2, 0.6], [0.9, 0.2, 0.6], [0.6, 0.4, 0.9]
    for rule, after, adopted in (
        ("not_worse", [0.4, 0.2, 0.5], False),
        ("not_worse", equal, True),
        ("not_worse", equal[::-1], True),
        ("not_worse", higher, True),
        ("better", equal, False),
        ("better", higher, False),
        ("better", surely, True),
        ("better", surely[:1], False),
        ("not_worse", [], False),
    ):
        made = decided(rule, equal, after)  # type: ignore[arg-type]
        assert made.gate.adopted is adopted, (rule, after, made.gate_reason)
        assert made.held_out_accuracy == (pytest.approx(fmean(after)) if after else None)
    assert "no held-out context has a score of it" in decided("not_worse", equal, []).gate_reason


async def test_a_policy_that_forgot_too_much_is_not_scored(system: System) -> None:
    scripted(system, [0, 3, 3, 3])
    system.services.lost = lambda subject: 0.9
    run = await ended(system, "not_worse")
    start, *made = await system.policies(run)
    assert {policy.gate for policy in made} == {GateState.REFUSED}
    assert all("max_forgetting" in policy.gate_reason for policy in made)
    scored = {t.policy for t in await system.trials(run) if t.phase is TrialPhase.HELD_OUT}
    assert scored == {start.name}


async def test_killed_over_and_over_it_keeps_the_same_best(system: System) -> None:
    script, gate, config = [0, 2, 1], {"held_out": "not_worse"}, {**CONFIG, "rounds": 2}
    scripted(system, script)
    async with system.working():
        calm = await system.until(await system.create(request_id="calm", gate=gate, **config))
    scripted(system, script)
    run = await system.create(request_id="shaken", gate=gate, **config)
    kills = await killed_over_and_over(system, run, range(12, 60), seed=7)
    over = await system.run(run)
    assert kills >= 3
    assert over.state is RunState.SUCCEEDED
    await assert_counted_once(system, over)
    assert await outcome(system, over) == await outcome(system, calm)
    spent = [sum((p.usage.train_tokens for p in await system.policies(one)), 0) for one in (calm, over)]
    assert spent[0] == spent[1] == 20


async def test_the_scores_of_a_refused_policy_are_not_tried_again(system: System) -> None:
    scripted(system, [0, 2, 1, 3])
    run = await ended(system, "not_worse")
    failed = tables.trials.update().where(tables.trials.c.phase == TrialPhase.HELD_OUT).values(state="failed")
    await system.database.write(lambda connection: connection.execute(failed) and None)
    again = await system.database.read(trials.retryable, run.name.removeprefix("runs/"))
    policies = {trial.name: trial.policy for trial in await system.trials(run)}
    adopted = [policy.name for policy in await system.policies(run) if policy.gate.adopted]
    assert len(adopted) == 3
    assert {policies[name] for name in again} == set(adopted)


async def test_a_comparison_that_cannot_be_made_is_refused_before_the_run(system: System) -> None:
    gate, plain = {"held_out": "not_worse"}, records()
    for word, changes in {
        "held_out.samples is 0": {"held_out": {"samples": 0}},
        "no held-out context": {"dataset": records(4, 0)},
        "an adaptation": {"task": "adapt"},
        "not one of editor.arms": {"editor": {"arms": ["base"]}, "selection": {"learn_from": ["base"]}},
    }.items():
        with pytest.raises(InvalidConfig, match=word):
            await system.create(request_id=word, gate=gate, **{"dataset": plain, **changes})


async def test_duplicates_are_trained_on_once_if_the_config_asks(system: System) -> None:
    system.services.text = lambda context, index, seed: f"good  edit {index // 2}" if index else "good edit 0"
    rule = {"rule": "positive", "must_beat_passage_only": False, "must_gain": False}
    plain = {"rounds": 1, "contexts_per_round": 2, "editor": {"k": 3}, "selection": rule}
    system.services.outcome = lambda subject, query: Outcome.CORRECT if subject else Outcome.INCORRECT
    taught = []
    for drop in (False, True):
        async with system.working():
            config = {**plain, "m_step": {"drop_duplicates": drop}}
            run = await system.until(await system.create(request_id=str(drop), **config))
        taught.append(system.services.taught[-1])
        assert len((await system.policies(run))[1].trials) == len(taught[-1])
    once = ["good edit 0 base", "good  edit 1 base"]
    assert taught == [["good edit 0 base", "good  edit 0 base", "good  edit 1 base"] * 2, once * 2]
