"""The contexts of a run: its dataset, checked, in the order of the records."""

from __future__ import annotations

from sqlalchemy import Connection, select

from controller.record.tables import contexts
from sealkit.domain import Context


def of_split(connection: Connection, run_id: str, split: str) -> list[Context]:
    """The run's contexts of a split, in the order of the records."""
    rows = connection.execute(
        select(contexts).where(contexts.c.run_id == run_id, contexts.c.split == split).order_by(contexts.c.position)
    )
    return [Context(context_id=row.context_id, split=row.split, payload=row.payload) for row in rows]


def get(connection: Connection, run_id: str, context_id: str) -> Context:
    """One context of a run."""
    row = connection.execute(
        select(contexts).where(contexts.c.run_id == run_id, contexts.c.context_id == context_id)
    ).one()
    return Context(context_id=row.context_id, split=row.split, payload=row.payload)
