"""The contexts of a run: its validated dataset, in the order of the records."""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, func, select

from controller.db.tables import contexts, trials
from sealkit.domains.base import Context

_GET = select(contexts).where(contexts.c.run_id == bindparam("run"), contexts.c.context_id == bindparam("context"))


def of_split(connection: Connection, run_id: str, split: str) -> list[Context]:
    """The run's contexts of a split, in the order of the records."""
    rows = connection.execute(
        select(contexts).where(contexts.c.run_id == run_id, contexts.c.split == split).order_by(contexts.c.position)
    )
    return [Context(context_id=row.context_id, split=row.split, payload=row.payload) for row in rows]


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
    row = connection.execute(_GET, {"run": run_id, "context": context_id}).one()
    return Context(context_id=row.context_id, split=row.split, payload=row.payload)
