"""The events of a run, numbered from 1 in the transaction of the change itself: none is lost or out of order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from controller.db.access import AccessScope
from controller.db.tables import RUN_HEAD, events, now, runs, trials
from sealkit.errors import InvalidCursor, UnknownRun
from sealkit.names import run_name
from sealkit.pace import Timeline
from sealkit.resources import (
    Event,
    EventKind,
    PolicyTrained,
    RoundFinished,
    RunProgress,
    RunState,
    RunStateChanged,
    RunWaiting,
    StageStarted,
    TrialFinished,
    TrialState,
)

_KINDS: dict[str, type[EventKind]] = {
    kind.__name__: kind
    for kind in (RunStateChanged, RunWaiting, StageStarted, TrialFinished, PolicyTrained, RoundFinished)
}

_ADD = insert(events)
_NEXT = update(runs).where(runs.c.run_id == bindparam("run")).values(events=runs.c.events + 1).returning(*RUN_HEAD)
_NEXT_TRIAL = _NEXT.values(
    trials_done=runs.c.trials_done + 1,
    spent_tokens=runs.c.spent_tokens + bindparam("more_tokens"),
    spent_device_seconds=runs.c.spent_device_seconds + bindparam("more_seconds"),
)
_ENDED = (
    select(events.c.sequence, events.c.trial, trials.c.state)
    .outerjoin_from(events, trials, trials.c.name == events.c.trial)
    .where(events.c.run_id == bindparam("run"), events.c.sequence > bindparam("seen"))
    .order_by(events.c.sequence)
)


def append(
    connection: Connection,
    run_id: str,
    kind: EventKind,
    *,
    trial: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Row[Any]:
    """Adds an event and updates columns of the run's row; returns the row's new head. The row stays locked to the end
    of the transaction, so events become visible in their order."""
    run = connection.execute(_NEXT.values(**changes or {}), {"run": run_id}).one()
    _insert(connection, run, kind, trial)
    return run


def append_trial(connection: Connection, kind: TrialFinished, *, run_id: str) -> Row[Any]:
    """Adds the event of a trial's end, and adds the trial and its usage to the run's counters; else like `append`."""
    usage = kind.trial.usage
    spent = {"more_tokens": usage.tokens, "more_seconds": usage.device_seconds}
    run = connection.execute(_NEXT_TRIAL, {"run": run_id, **spent}).one()
    _insert(connection, run, kind, kind.trial.name)
    return run


def _insert(connection: Connection, run: Row[Any], kind: EventKind, trial: str | None) -> None:
    row = {
        "run_id": run.run_id,
        "sequence": run.events,
        "time": now(),
        "trial": trial,
        "progress": progress_of(run).model_dump(mode="json"),
        "kind": type(kind).__name__,
        "body": kind.model_dump(mode="json"),
    }
    connection.execute(_ADD, row)


def after(
    connection: Connection, scope: AccessScope, run_id: str, cursor: str, *, limit: int, latest: int = 0
) -> tuple[list[Event], bool]:
    """The next events after a cursor, and whether they are the last ones (unless the run is resumed). `latest`: only so
    many of the latest, and before them those that say where the run is; 0: all.

    Raises UnknownRun; InvalidCursor if the cursor is not one of this run.
    """
    run = connection.execute(
        select(runs.c.state, runs.c.events).where(runs.c.run_id == run_id, scope.runs)
    ).one_or_none()
    if run is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": run_name(run_id)})
    seen = _sequence(cursor, run.events)
    start = max(seen, run.events - latest) if latest else seen
    rows = _where_the_run_is(connection, run_id, seen, start) if start > seen else []
    rows += connection.execute(
        select(events)
        .where(events.c.run_id == run_id, events.c.sequence > start)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    ended = RunState(run.state).terminal and (rows[-1].sequence if rows else seen) == run.events
    return [_event(row) for row in rows], ended


def _where_the_run_is(connection: Connection, run_id: str, after: int, until: int) -> list[Row[Any]]:
    """Of the events after number `after`, until number `until`, the last change of state, and since then the start of
    the last stage and the last event of each wait."""
    kinds = (RunStateChanged, StageStarted, RunWaiting)
    rows = connection.execute(
        select(events)
        .where(
            events.c.run_id == run_id,
            events.c.sequence.between(after + 1, until),
            events.c.kind.in_([kind.__name__ for kind in kinds]),
        )
        .order_by(events.c.sequence)
    )
    found: dict[str, Row[Any]] = {}
    for row in rows:
        if row.kind == RunStateChanged.__name__:
            found.clear()
        found[row.kind if row.kind != RunWaiting.__name__ else f"{row.kind} {row.body['doing']}"] = row
    return sorted(found.values(), key=lambda row: row.sequence)


def ended_trials(connection: Connection, run_id: str, seen: int) -> tuple[list[str], int]:
    """Names of the trials that ended after event number `seen`, and the number to continue from. Trials that have been
    queued again since are left out."""
    rows = connection.execute(_ENDED, {"run": run_id, "seen": seen}).all()
    ended = [row.trial for row in rows if row.state and TrialState(row.state).terminal]
    return ended, rows[-1].sequence if rows else seen


def timeline(connection: Connection, run_id: str) -> Timeline:
    """Where the time of a run went."""
    of_run = events.c.run_id == run_id
    kinds = select(events.c.sequence, events.c.body).where(of_run, events.c.kind != TrialFinished.__name__)
    bodies = {row.sequence: row.body for row in connection.execute(kinds)}
    rows = connection.execute(
        select(events.c.sequence, events.c.time, events.c.kind, events.c.progress)
        .where(of_run)
        .order_by(events.c.sequence)
    )
    found = Timeline()
    for row in rows:
        kind = _KINDS[row.kind].from_stored(bodies[row.sequence]) if row.sequence in bodies else None
        found.note(row.time, kind, RunProgress.from_stored(row.progress))
    return found


def progress_of(run: Row[Any]) -> RunProgress:
    """Progress of the run of this row."""
    return RunProgress(
        stage=run.stage,
        rounds_done=run.rounds_done,
        rounds_total=run.rounds_total,
        trials_done=run.trials_done,
        trials_total=run.trials_total,
    )


def _sequence(cursor: str, last: int) -> int:
    sequence = int(cursor) if cursor.isascii() and cursor.isdigit() else -1 if cursor else 0
    if not 0 <= sequence <= last:
        raise InvalidCursor(
            f"{cursor!r} is not a cursor of this run; use the last event's, or none to start from the first event",
            fields=(("cursor", "not a cursor of this run"),),
        )
    return sequence


def _event(row: Row[Any]) -> Event:
    return Event(
        cursor=str(row.sequence),
        time=row.time,
        progress=RunProgress.from_stored(row.progress),
        kind=_KINDS[row.kind].from_stored(row.body),
    )
