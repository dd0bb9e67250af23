"""Leases: who may write what. A lease is a fencing token that SQL counts up whenever the thing changes hands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, bindparam, delete, or_, select, update

from controller.db.database import insert_new
from controller.db.tables import RUN_HEAD, runs, workers
from sealkit.names import run_name
from sealkit.resources import RunState


class LeaseLost(Exception):
    """Somebody else has it now, or it was cancelled: the holder stops, and nothing it wrote since took effect."""


@dataclass(frozen=True, slots=True)
class RunLease:
    """The right to drive a run."""

    run_id: str
    token: int

    @property
    def run(self) -> str:
        """Resource name of the run."""
        return run_name(self.run_id)


@dataclass(frozen=True, slots=True)
class TrialLease:
    """The right to end a trial. `name` is the trial's resource name."""

    run_id: str
    name: str
    token: int


def hold(connection: Connection, lease: RunLease, *, lock: bool = True) -> Row[Any]:
    """The head of the run's row; with `lock` nobody else writes it before the transaction ends. Raises LeaseLost where
    the lease is over."""
    row = connection.execute(HEAD_LOCKED if lock else HEAD, {"run": lease.run_id}).one()
    if row.driver_token != lease.token or row.state != RunState.RUNNING:
        raise LeaseLost(lease.run)
    return row


# What is asked for every trial is put together once: building a statement costs more than SQLite takes to answer it.
HEAD = select(*RUN_HEAD).where(runs.c.run_id == bindparam("run"))
"""The head of a run's row."""
HEAD_LOCKED = HEAD.with_for_update()


def beat(connection: Connection, worker_id: str) -> None:
    """A worker's sign of life. Its absence, not a clock's time, ends what the worker holds."""
    if not connection.execute(
        update(workers).where(workers.c.worker_id == worker_id).values(beat=workers.c.beat + 1)
    ).rowcount:
        insert_new(connection, workers, {"worker_id": worker_id, "beat": 1})


def beats(connection: Connection) -> dict[str, int]:
    """The last beat of each worker that has not left."""
    return {row.worker_id: row.beat for row in connection.execute(select(workers))}


def gone(holder: Column[str], dead: Collection[str]) -> ColumnElement[bool]:
    """Whether nobody alive holds it: nobody at all, one of the `dead`, or one that was struck off."""
    return or_(holder.in_(["", *dead]), holder.not_in(select(workers.c.worker_id)))


def leave(connection: Connection, worker_ids: list[str]) -> None:
    """Strikes workers off: what they hold is free at once."""
    connection.execute(delete(workers).where(workers.c.worker_id.in_(worker_ids)))
