"""The contexts of a run: its validated dataset, in the order of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, select, update

from controller.db import budgets
from controller.db.leases import RunLease
from controller.db.tables import contexts, trials
from sealkit.domains.base import Context
from sealkit.names import run_id_of
from sealkit.resources import Trial
from sealkit.types import Usage

_GET = select(contexts).where(contexts.c.run_id == bindparam("run"), contexts.c.context_id == bindparam("context"))


def of_split(connection: Connection, run_id: str, split: str) -> list[Context]:
    """The run's contexts of a split, in the order of the records."""
    rows = connection.execute(
        select(contexts).where(contexts.c.run_id == run_id, contexts.c.split == split).order_by(contexts.c.position)
    )
    return [context_of(row) for row in rows]


def learned_before(connection: Connection, run_id: str, round_index: int, count: int) -> list[Context]:
    """The contexts that the run learned before a round, newest first, at most `count`."""
    kept = and_(trials.c.run_id == run_id, trials.c.selected, trials.c.round < round_index)
    query = (
        select(trials.c.context_id)
        .where(kept)
        .group_by(trials.c.context_id)
        .order_by(func.max(trials.c.round).desc(), trials.c.context_id)
        .limit(count)
    )
    return [get(connection, run_id, context_id) for context_id in connection.scalars(query).all()]


def get(connection: Connection, run_id: str, context_id: str) -> Context:
    """One context of a run."""
    return context_of(connection.execute(_GET, {"run": run_id, "context": context_id}).one())


def of_trials(connection: Connection, kept: Sequence[Trial]) -> dict[str, Context]:
    """The context of each of these trials, of any runs, by the trial's name."""
    return {trial.name: get(connection, run_id_of(trial.name), trial.context_id) for trial in kept}


def of_document(connection: Connection, run_id: str, document: int) -> list[Context]:
    """The passages of a document, in their order."""
    here = and_(contexts.c.run_id == run_id, contexts.c.document == document)
    return [context_of(row) for row in connection.execute(select(contexts).where(here).order_by(contexts.c.position))]


def add(connection: Connection, run_id: str, new: Sequence[Context]) -> None:
    """Inserts the contexts of a run, which has none yet."""
    rows = [{"run_id": run_id, "position": i, **one.model_dump(mode="json")} for i, one in enumerate(new)]
    if rows:
        connection.execute(insert(contexts), rows)


# --- generated exams --------------------------------------------------------------------------------------------------
def without_exam(connection: Connection, run_id: str) -> list[Context]:
    """The contexts whose exam models have yet to write, in their order."""
    missing = and_(contexts.c.run_id == run_id, contexts.c.generated, contexts.c.exam.is_(None))
    return [
        context_of(row) for row in connection.execute(select(contexts).where(missing).order_by(contexts.c.position))
    ]


def exams(connection: Connection, run_id: str, document: int) -> list[dict[str, Any]]:
    """How the exams of a document's passages were made, in their order."""
    made = and_(contexts.c.run_id == run_id, contexts.c.document == document, contexts.c.exam.is_not(None))
    return list(connection.scalars(select(contexts.c.exam).where(made).order_by(contexts.c.position)))


def keep_exam(connection: Connection, lease: RunLease, context: Context, exam: Mapping[str, Any], usage: Usage) -> None:
    """Stores a context with its generated exam, and how it was made. Raises LeaseLost."""
    budgets.spend(connection, lease, usage)
    here = and_(contexts.c.run_id == lease.run_id, contexts.c.context_id == context.context_id)
    connection.execute(update(contexts).where(here).values(payload=context.payload, exam=dict(exam)))


def context_of(row: Row[Any]) -> Context:
    """The context of a row with its columns."""
    return Context(**{name: row._mapping[name] for name in Context.model_fields})
