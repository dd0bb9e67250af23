"""The gate: what forgot too much is not published, and everything says so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.db import aliases
from controller.db.access import FULL_ACCESS
from controller.report.run import build_report
from controller.rules.gate import compared_on_exam, verdict, within_gate
from sealkit.config import CostConfig, GateConfig, parse_config
from sealkit.resources import (
    GateState,
    PolicyTrained,
    PolicyVersion,
    RoundFinished,
    RunState,
    Trial,
    TrialPhase,
    TrialState,
)
from sealkit.types import Outcome, Retention, Verdict
from tests.unit.controller.controller_system import System


@pytest.mark.parametrize(
    ("low", "limit", "state"),
    [
        (0.26, 0.25, GateState.REFUSED),
        (0.25, 0.25, GateState.PASSED),
        (-0.1, 0.0, GateState.PASSED),
        (0.01, 0.0, GateState.REFUSED),
        (1.0, 1.0, GateState.PASSED),
    ],
)
def test_only_confidence_above_the_limit_refuses(low: float, limit: float, state: GateState) -> None:
    retention = Retention(
        kept=20, accuracy_before=1.0, accuracy_after=0.5, forgetting=0.5, forgetting_low=low, forgetting_high=1.0
    )
    found, reason = verdict(retention, GateConfig(max_forgetting=limit))
    assert found is state
    assert "0.50" in reason
    assert "20 retention questions" in reason


@pytest.mark.parametrize(
    ("commit", "limits", "low", "kept"),
    [
        ("route", (0.25, 0.5), 0.5, True),
        ("route", (0.25, 0.5), 0.51, False),
        ("route", (1.0, 0.5), 0.9, True),
        ("consolidate", (0.25, 0.5), 0.26, False),
    ],
)
def test_an_adapter_that_a_route_confines_may_forget_more(
    commit: str, limits: tuple[float, float], low: float, kept: bool
) -> None:
    most, most_of_one = limits
    config = parse_config(
        {"adapt": {"commit": commit}, "gate": {"max_forgetting": most, "max_adapter_forgetting": most_of_one}}
    )
    retention = Retention(
        kept=20, accuracy_before=1.0, accuracy_after=0.5, forgetting=0.5, forgetting_low=low, forgetting_high=1.0
    )
    trial = Trial(
        name="runs/r/trials/t", round=0, phase=TrialPhase.E_STEP, editor="base", context_id="c", index=0,
        policy="policies/p", state=TrialState.SUCCEEDED, retention=retention,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert within_gate(trial, config) is kept


def test_what_was_not_measured_is_neither() -> None:
    assert verdict(None, GateConfig())[0] is GateState.UNMEASURED


@pytest.mark.parametrize(("before", "after", "adopted"), [(0, 1, True), (1, 2, True), (1, 1, False), (2, 1, False)])
def test_a_version_that_answers_its_documents_exam_no_better_is_refused(before: int, after: int, adopted: bool) -> None:
    def version(right: int) -> PolicyVersion:
        graded = {"exam/0": right > 0, "exam/1": right > 1, "other/0": right < after}
        verdicts = [
            Verdict(query_id=name, answer="", outcome=Outcome.CORRECT if correct else Outcome.INCORRECT)
            for name, correct in graded.items()
        ]
        return PolicyVersion(
            name=f"policies/{right}", run="runs/r", version=0, gate=GateState.PASSED, verdicts=tuple(verdicts),
            create_time=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    found = compared_on_exam(version(before), version(after), {"exam/0", "exam/1"})
    assert found.gate.adopted is adopted
    assert (f"answers {after} of 2 questions" in found.gate_reason) is not adopted


async def test_a_policy_that_forgot_too_much_stays_in_the_record_and_teaches_nobody(system: System) -> None:
    system.services.lost = lambda subject: 0.9
    async with system.working():
        run = await system.until(await system.create(gate={"max_forgetting": 0.25, "alias": "main"}))
    assert run.state is RunState.SUCCEEDED
    start, *made = await system.policies(run)
    assert [policy.gate for policy in made] == [GateState.REFUSED] * 2
    assert all(policy.retention and "max_forgetting is 0.25" in policy.gate_reason for policy in made)
    assert {trial.policy for trial in await system.trials(run)} == {start.name}
    kinds = [event.kind for event in await system.events(run)]
    assert [kind.policy.gate for kind in kinds if isinstance(kind, PolicyTrained)] == [GateState.REFUSED] * 2
    assert [kind.policy for kind in kinds if isinstance(kind, RoundFinished)] == [start.name] * 2
    assert (await system.database.read(aliases.page, FULL_ACCESS, 0, "")).items == []
    verdict_of_run = build_report(run, await system.trials(run), [start, *made], CostConfig()).verdict
    assert verdict_of_run.startswith("The gate refused every policy")


async def test_what_passes_is_published_under_the_alias(system: System) -> None:
    system.services.lost = lambda subject: 0.2
    async with system.working():
        run = await system.until(await system.create(gate={"max_forgetting": 0.25, "alias": "main"}))
    start, *made = await system.policies(run)
    assert start.gate is GateState.PASSED
    assert [policy.gate for policy in made] == [GateState.PASSED] * 2
    assert [policy.forgetting for policy in made] == [0.2] * 2
    assert [policy.divergence.on_fixed_text for policy in made if policy.divergence] == [0.25] * 2
    alias = await system.database.read(aliases.get, FULL_ACCESS, "main")
    assert [change.policy for change in alias.history] == [policy.name for policy in reversed(made)]
    assert alias.history[0].reason == f"{run.name}/rounds/1"
