"""Runs in the record: accepted, taken up by a driver, cancelled, resumed, ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from controller.record import events, trials
from controller.record.database import insert_new
from controller.record.leases import RunLease, gone, hold
from controller.record.pages import Page, key_of, size_of, token_after
from controller.record.tables import contexts, now, policies, requests, runs
from sealkit.domain import Context
from sealkit.errors import RequestIdReused, RunNotResumable, UnknownPolicy, UnknownRun
from sealkit.resources import Fault, Run, RunState, RunStateChanged, StageStarted
from sealkit.types import Value, digest_of


class NewRun(Value):
    """A run to journal; `digest` tells whether the same request id comes with the same content."""

    run_id: str
    request_id: str
    digest: str
    display_name: str
    config: dict[str, Any]
    retention: tuple[dict[str, str], ...]
    start_policy: str
    rounds_total: int
    trials_total: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a driver or a worker needs of a run; it never changes."""

    run_id: str
    config: Mapping[str, Any]
    retention: Sequence[Mapping[str, str]]
    start_policy: str


def create(connection: Connection, new: NewRun, run_contexts: Sequence[Context]) -> Run:
    """Journals a run; the same request again returns the run it made. Raises RequestIdReused, UnknownPolicy."""
    if not _first_time(connection, new.request_id, new.digest, new.run_id):
        return get(connection, new.run_id)
    if new.start_policy and not connection.scalar(select(policies.c.name).where(policies.c.name == new.start_policy)):
        raise UnknownPolicy(
            f"start_policy {new.start_policy!r} is not in the record; ListPolicies says which there are",
            metadata={"policy": new.start_policy},
        )
    values = new.model_dump(mode="json", exclude={"request_id", "digest"})
    connection.execute(
        insert(runs).values(
            **values,
            state=RunState.QUEUED,
            create_time=now(),
            stage="queued",
            rounds_done=0,
            trials_done=0,
            events=0,
            driver="",
            driver_token=0,
        )
    )
    rows = [{"run_id": new.run_id, "position": i, **c.model_dump(mode="json")} for i, c in enumerate(run_contexts)]
    connection.execute(insert(contexts), rows)
    events.append(connection, new.run_id, RunStateChanged(state=RunState.QUEUED))
    return get(connection, new.run_id)


def get(connection: Connection, run_id: str) -> Run:
    """One run. Raises UnknownRun."""
    return _run(_row(connection, run_id))


def page(connection: Connection, size: int, token: str) -> Page[Run]:
    """Runs, newest first. Raises InvalidInput on a bad token."""
    query = select(runs).order_by(runs.c.create_time.desc(), runs.c.run_id.desc()).limit(size_of(size) + 1)
    if key := key_of(token, str):
        last = select(runs.c.create_time).where(runs.c.run_id == key[0]).scalar_subquery()
        same = and_(runs.c.create_time == last, runs.c.run_id < key[0])
        query = query.where(or_(runs.c.create_time < last, same))
    rows = connection.execute(query).all()
    shown = rows[: size_of(size)]
    return Page([_run(row) for row in shown], token_after([shown[-1].run_id]) if len(rows) > len(shown) else "")


def plan(connection: Connection, run_id: str) -> RunPlan:
    """What the run is to do. Raises UnknownRun."""
    row = _row(connection, run_id)
    return RunPlan(row.run_id, row.config, row.retention, row.start_policy)


# --- driving ----------------------------------------------------------------------------------------------------------
def free(connection: Connection, dead: Collection[str]) -> list[str]:
    """Ids of the unfinished runs that no living worker drives."""
    unfinished = runs.c.state.in_([RunState.QUEUED, RunState.RUNNING])
    return list(connection.scalars(select(runs.c.run_id).where(unfinished, gone(runs.c.driver, dead))))


def take_free(connection: Connection, worker_id: str, dead: Collection[str]) -> list[RunLease]:
    """Takes every unfinished run that no living worker drives."""
    rows = connection.execute(
        select(runs.c.run_id, runs.c.driver_token, runs.c.state).where(runs.c.run_id.in_(free(connection, dead)))
    ).all()
    leases = [_take(connection, worker_id, *row) for row in rows]
    return [lease for lease in leases if lease is not None]


def _take(connection: Connection, worker_id: str, run_id: str, token: int, state: str) -> RunLease | None:
    took = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.driver_token == token, runs.c.state == state)
        .values(driver=worker_id, driver_token=token + 1, state=RunState.RUNNING)
        .values(start_time=func.coalesce(runs.c.start_time, now()))
    )
    if not took.rowcount:
        return None
    if state == RunState.QUEUED:
        events.append(connection, run_id, RunStateChanged(state=RunState.RUNNING))
    return RunLease(run_id, token + 1)


def release(connection: Connection, lease: RunLease) -> None:
    """Lets go of a run that is not at its end, for another driver to take at once."""
    connection.execute(
        update(runs).where(runs.c.run_id == lease.run_id, runs.c.driver_token == lease.token).values(driver="")
    )


def stage(connection: Connection, lease: RunLease, round_index: int, name: str) -> None:
    """Says what begins; saying it again, after a take-over, changes nothing."""
    row = hold(connection, lease)
    words = f"round {round_index + 1} of {row.rounds_total}: {name}"
    if row.stage != words:
        connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(stage=words))
        events.append(connection, lease.run_id, StageStarted(round=round_index, stage=name))


def end(connection: Connection, lease: RunLease, state: RunState, error: Fault | None = None) -> None:
    """Brings the run to its end. Raises LeaseLost."""
    hold(connection, lease)
    _end(connection, lease.run_id, state, error)


def _end(connection: Connection, run_id: str, state: RunState, error: Fault | None) -> None:
    trials.cancel(connection, run_id)
    values = {"state": state, "end_time": now(), "driver": "", "stage": state.value}
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(**values, error=error.model_dump(mode="json") if error else None)
        .values(trials_done=trials.count_done(run_id), driver_token=runs.c.driver_token + 1)
    )
    events.append(connection, run_id, RunStateChanged(state=state, error=error))


# --- the caller's say -------------------------------------------------------------------------------------------------
def cancel(connection: Connection, run_id: str, request_id: str) -> Run:
    """Ends a run that has not ended, and its trials with it. Raises UnknownRun, RequestIdReused."""
    row = _row(connection, run_id, lock=True)
    if _first_time(connection, request_id, digest_of("cancel", run_id), run_id) and not RunState(row.state).terminal:
        _end(connection, run_id, RunState.CANCELLED, None)
    return get(connection, run_id)


def resume(connection: Connection, run_id: str, request_id: str) -> Run:
    """Queues a failed or cancelled run again, with those of its trials that failed or were cancelled.

    Only where they can still count: a round whose M-step is done has taught its policy, and stays as it was.
    Raises UnknownRun, RunNotResumable, RequestIdReused.
    """
    row = _row(connection, run_id, lock=True)
    if not _first_time(connection, request_id, digest_of("resume", run_id), run_id):
        return get(connection, run_id)
    if row.state not in (RunState.FAILED, RunState.CANCELLED):
        raise RunNotResumable(
            f"runs/{run_id} is {row.state}; only a failed or cancelled run can be resumed",
            metadata={"state": row.state},
        )
    trials.reset(connection, run_id)
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(state=RunState.QUEUED, end_time=None, error=None, stage="queued", trials_done=trials.count_done(run_id))
    )
    events.append(connection, run_id, RunStateChanged(state=RunState.QUEUED))
    return get(connection, run_id)


def _first_time(connection: Connection, request_id: str, digest: str, run_id: str) -> bool:
    """Whether this request is new. Raises RequestIdReused where its id came before with other content."""
    if not request_id:
        return True
    row = {"request_id": request_id, "digest": digest, "run_id": run_id, "create_time": now()}
    if insert_new(connection, requests, row):
        return True
    before = connection.scalar(select(requests.c.digest).where(requests.c.request_id == request_id))
    if before != digest:
        raise RequestIdReused(
            f"request_id {request_id!r} came before with other content; make a new id for a new request",
            metadata={"request_id": request_id},
        )
    return False


def _row(connection: Connection, run_id: str, *, lock: bool = False) -> Row[Any]:
    query = select(runs).where(runs.c.run_id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": f"runs/{run_id}"})
    return row


def _run(row: Row[Any]) -> Run:
    return Run(
        name=f"runs/{row.run_id}",
        display_name=row.display_name,
        state=row.state,
        config=row.config,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        error=row.error,
        progress=events.progress_of(row),
    )
