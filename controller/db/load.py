"""The runs with trials to do."""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, func, or_, select

from controller.db import states
from controller.db.access import AccessScope
from controller.db.tables import runs, trials
from sealkit import limits
from sealkit.names import run_name
from sealkit.resources import RunLoad, RunState, TrialPhase, TrialState


def run_loads(connection: Connection, scope: AccessScope) -> list[RunLoad]:
    """The visible runs that are queued or running, and others with open trials: reruns, or those of a paused run. Those
    of the highest priority come first; at most as many as a page has."""
    running, own = trials.c.state == TrialState.RUNNING, trials.c.phase != TrialPhase.RERUN
    open_trials = (
        select(
            trials.c.run_id,
            func.count(case((running, 1))).label("running"),
            func.count(case((~running, 1))).label("queued"),
            func.count(case((own, 1))).label("own"),
        )
        .where(trials.c.state.in_(states.CANCEL_TRIAL.sources))
        .group_by(trials.c.run_id)
        .subquery()
    )
    rows = connection.execute(
        select(
            runs.c.run_id, runs.c.display_name, runs.c.state, runs.c.priority, runs.c.trials_total, runs.c.trials_done,
            func.coalesce(open_trials.c.running, 0).label("running"),
            func.coalesce(open_trials.c.queued, 0).label("queued"),
            func.coalesce(open_trials.c.own, 0).label("own"),
        )
        .outerjoin_from(runs, open_trials, open_trials.c.run_id == runs.c.run_id)
        .where(and_(scope.runs, or_(runs.c.state.in_(states.TAKE_RUN.sources), open_trials.c.run_id.is_not(None))))
        .order_by(runs.c.priority.desc(), runs.c.create_time, runs.c.run_id)
        .limit(limits.PAGE_ROWS)
    )  # fmt: skip
    return [
        RunLoad(
            run=run_name(row.run_id),
            display_name=row.display_name,
            state=RunState(row.state),
            priority=row.priority,
            running=row.running,
            queued=row.queued,
            planned=0 if RunState(row.state).terminal else max(0, row.trials_total - row.trials_done - row.own),
        )
        for row in rows
    ]
