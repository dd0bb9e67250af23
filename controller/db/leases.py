"""Leases: the right to write to a run or trial. A lease has a fencing token, which SQL increments at every change of
holder."""

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
    """The run or trial was taken over or cancelled. The holder must stop; its writes since then had no effect."""


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
    """The head of the run's row; with `lock` the row is locked until the transaction ends. Raises LeaseLost."""
    row = connection.execute(HEAD_LOCKED if lock else HEAD, {"run": lease.run_id}).one()
    if row.driver_token != lease.token or row.state != RunState.RUNNING:
        raise LeaseLost(lease.run)
    return row


# Statements that run for every trial are built once: building one costs more than SQLite needs to execute it.
HEAD = select(*RUN_HEAD).where(runs.c.run_id == bindparam("run"))
"""The head of a run's row."""
HEAD_LOCKED = HEAD.with_for_update()


def beat(connection: Connection, worker_id: str) -> None:
    """Increments a worker's heartbeat counter. A worker whose counter stops loses what it holds; no clock is
    compared."""
    if not connection.execute(
        update(workers).where(workers.c.worker_id == worker_id).values(beat=workers.c.beat + 1)
    ).rowcount:
        insert_new(connection, workers, {"worker_id": worker_id, "beat": 1})


def beats(connection: Connection) -> dict[str, int]:
    """The heartbeat counter of each worker that is signed on."""
    return {row.worker_id: row.beat for row in connection.execute(select(workers))}


def unheld(holder: Column[str], dead: Collection[str]) -> ColumnElement[bool]:
    """Whether no living worker holds it: the holder is empty, one of the `dead`, or signed off."""
    return or_(holder.in_(["", *dead]), holder.not_in(select(workers.c.worker_id)))


def leave(connection: Connection, worker_ids: list[str]) -> None:
    """Signs workers off: what they hold is free at once."""
    connection.execute(delete(workers).where(workers.c.worker_id.in_(worker_ids)))
