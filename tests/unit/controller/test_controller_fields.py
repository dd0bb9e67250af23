"""What the record keeps of a value has a column of the field's name; those without each other are listed here."""

from __future__ import annotations

import pytest
from sqlalchemy import Table

from controller.db import tables
from controller.db.attempts import Result
from sealkit.resources import PolicyVersion, Trial, TrialState
from sealkit.types import Value

UNSEEN_RESULTS = {"trained_characters", "baseline_verdicts"}
"""Of a trial's result, what serves the controller alone: the budget of passage-only trials, and selection."""
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
