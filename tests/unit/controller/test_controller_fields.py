"""What the record keeps of a value has a column of the field's name; those without each other are listed here. And
every field of a trial's result is filled in."""

from __future__ import annotations

import pytest
from sqlalchemy import Table

from controller.db import runs, tables
from controller.db.attempts import Result, Sampled, Spent, Taken
from controller.db.leases import TrialLease
from controller.db.trials import Plan
from controller.rules.setup import make_setup
from controller.services import Services
from controller.trial.versions import Versions
from controller.trial.work import TrialWork
from sealkit.domains.base import Context
from sealkit.resources import Editor, PolicyVersion, Trial, TrialPhase, TrialState
from sealkit.types import (
    Divergence,
    Evaluation,
    EvaluationRequest,
    Outcome,
    Policy,
    Retention,
    Usage,
    Value,
    Verdict,
)
from tests.unit.controller.controller_fakes import DOMAIN, FakeServices
from tests.unit.controller.controller_system import System

UNSEEN_RESULTS = {"trained_characters"}
"""Of a trial's result, what serves the controller alone: the budget of passage-only trials."""
TRIAL_COLUMNS_ALONE = {"run_id", "token", "worker", "target_characters"} | UNSEEN_RESULTS
"""Beside those: which run's it is, who holds it, and the budget of a passage-only trial."""


RESULT = set(Result(state=TrialState.SUCCEEDED).columns())


def test_every_field_of_a_trial_s_result_has_a_column() -> None:
    assert set(tables.trials.c.keys()) >= RESULT
    assert set(Result.model_fields) - {"spent"} <= RESULT


@pytest.mark.parametrize(
    ("value_class", "table", "fields_alone", "columns_alone"),
    [
        (Trial, tables.trials, set(), TRIAL_COLUMNS_ALONE),
        # `run` is made of `run_id`; the digest of the base model guards against a start from another's policy.
        (PolicyVersion, tables.policies, {"run"}, {"run_id", "base_model"}),
    ],
)
def test_a_resource_is_its_row(
    value_class: type[Value], table: Table, fields_alone: set[str], columns_alone: set[str]
) -> None:
    fields, columns = set(value_class.model_fields), set(table.c.keys())
    assert (fields - columns, columns - fields) == (fields_alone, columns_alone)


def test_a_caller_sees_all_that_a_trial_found_but_what_is_listed() -> None:
    assert RESULT - set(Trial.model_fields) == UNSEEN_RESULTS


MEASURED = Evaluation(
    verdicts=(Verdict(query_id="q", answer="yes", outcome=Outcome.CORRECT),),
    baseline_verdicts=(Verdict(query_id="q", answer="no", outcome=Outcome.INCORRECT),),
    retention=Retention(kept=2, accuracy_before=1.0, accuracy_after=0.5, forgetting=0.5),
    divergence=Divergence(on_fixed_text=0.25),
    stopped_early=True,
    batch_variant_rate=0.125,
    judge_version="1",
    usage=Usage(completion_tokens=1),
)
"""With no field at its default."""


def at_default(value: Value) -> set[str]:
    fields = type(value).model_fields.items()
    return {name for name, field in fields if getattr(value, name) == field.get_default(call_default_factory=True)}


async def result(system: System, completion: str, evaluation: Evaluation) -> Result:
    """Of a trial with this self-edit, for which the evaluator returns `evaluation`."""

    class Measuring(FakeServices):
        async def evaluate(self, request: EvaluationRequest) -> Evaluation:
            return evaluation

    async def keep(sampled: Sampled, spent: Spent) -> None: ...

    run_id = (await system.create()).name.removeprefix("runs/")
    services = Services(*[Measuring()] * 3)
    plan = Plan(
        run_id=run_id, round=0, trial_id="t", phase=TrialPhase.E_STEP, editor=Editor.POLICY, context_id="c", index=0,
        policy="p",
    )  # fmt: skip
    taken = Taken(
        lease=TrialLease(run_id, plan.name, 1),
        plan=plan,
        context=Context(context_id="c", split="train", payload={"text": "A fact."}, generated=True),
        policy=Policy(name="p"),
        attempts=1,
        sampled=Sampled(completion=completion),
        spent=Spent(),
        manifest=None,
    )
    setup = make_setup(await system.database.read(runs.plan, run_id), (DOMAIN,))
    return await TrialWork(taken, services, Versions(services), keep).bring_to_end(setup)


async def test_a_trial_s_result_has_all_that_the_evaluator_measured(system: System) -> None:
    assert at_default(MEASURED) == set(), "add the new field to MEASURED"
    missing = at_default(await result(system, "good", MEASURED)) & set(Evaluation.model_fields)
    assert missing == set(), "controller/trial/work.py does not fill them in"


async def test_every_field_of_a_trial_s_result_is_filled_in_for_some_trial(system: System) -> None:
    ungraded = tuple(verdict.changed(outcome=Outcome.UNGRADED) for verdict in MEASURED.verdicts)
    results = [
        await result(system, "good", MEASURED),
        await result(system, "good", MEASURED.changed(stopped_early=False)),
        await result(system, "good", MEASURED.changed(verdicts=ungraded)),
        await result(system, "bad", MEASURED),
    ]
    assert set.intersection(*map(at_default, results)) == set(), "controller/trial/work.py does not fill them in"
