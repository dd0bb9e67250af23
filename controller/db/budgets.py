"""Budgets: a run is paused once its own budget or its tenant's quota of device seconds (`quotas`) is used up.

Usage is added to counters in the run's row as trials end. A run over a limit is paused when something more would have
to start: trials in progress finish and count, and a run whose last trial reached the limit succeeds. Active time is
counted in steps of the driver's monotonic clock (`tick`), so clock changes do not matter, and time without a driver is
free.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, exists, func, select, update

from controller.db import events, quotas, states
from controller.db.leases import RunLease, hold
from controller.db.tables import RUN_HEAD, runs, trials
from sealkit.errors import BudgetExhausted
from sealkit.faults import fault_of
from sealkit.names import run_name
from sealkit.resources import Budget, Fault, RunState, RunStateChanged, TrialPhase, TrialState
from sealkit.types import Usage

_SPENT = {
    "trials": runs.c.trials_done,
    "tokens": runs.c.spent_tokens,
    "device_seconds": runs.c.spent_device_seconds,
    "wall_seconds": runs.c.active_seconds,
}
"""The counter of each limit."""
ALL = frozenset(_SPENT)
BUT_TRIALS = ALL - {"trials"}
"""Limits that also stop work other than trials: the M-step, the scoring of a policy."""
WALL = frozenset({"wall_seconds"})
_DEVICE = frozenset({"device_seconds"})


def more_spent(usage: Usage) -> dict[str, Any]:
    """The run's counters plus this usage, for an UPDATE of its row."""
    return {
        "spent_tokens": runs.c.spent_tokens + usage.tokens,
        "spent_device_seconds": runs.c.spent_device_seconds + usage.device_seconds,
    }


def less_spent(usage: Usage) -> dict[str, Any]:
    """The run's counters minus this usage, which is added again when the retried trial ends."""
    return {
        "spent_tokens": runs.c.spent_tokens - usage.tokens,
        "spent_device_seconds": runs.c.spent_device_seconds - usage.device_seconds,
    }


def spend(connection: Connection, lease: RunLease, usage: Usage) -> None:
    """Counts usage that is not a trial's and not a version's. Raises LeaseLost."""
    row = hold(connection, lease)
    connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(more_spent(usage)))
    quotas.spend(connection, row.tenant, usage.device_seconds)


def over(connection: Connection, row: Row[Any], limits: Collection[str] = ALL) -> Fault | None:
    """A fault that names which of these limits the run has reached; None: it may continue. Its tenant's quota of device
    seconds is checked too."""
    fault = _over_own(row, limits)
    return quotas.over(connection, row.tenant) if fault is None and "device_seconds" in limits else fault


def _over_own(row: Row[Any], limits: Collection[str]) -> Fault | None:
    budget = in_force(row).model_dump(include=set(limits))
    said = [
        f"{name} {_number(row._mapping[_SPENT[name]])} of {_number(limit)}"
        for name, limit in budget.items()
        if limit and row._mapping[_SPENT[name]] >= limit
    ]
    if not said:
        return None
    message = f"the budget is used up: {', '.join(said)}; resume the run with a larger one to continue"
    return fault_of(BudgetExhausted(message))


def in_force(row: Row[Any]) -> Budget:
    """The current budget: the config's, or the one that ResumeRun replaced it with."""
    return Budget.from_stored(row.budget or {})


def may_start(connection: Connection, row: Row[Any]) -> bool:
    """Whether one more trial of this running run may start; with a limit on trials, those in progress count."""
    if row.state != RunState.RUNNING or over(connection, row):
        return False
    limit = in_force(row).trials
    return not limit or row.trials_done + _count(connection, row.run_id, TrialState.RUNNING) < limit


def wants_more(connection: Connection, run_id: str) -> bool:
    """Whether a trial of the run is queued."""
    query = select(exists().where(*_own(run_id), trials.c.state == TrialState.QUEUED))
    return bool(connection.scalar(query))


def settle(connection: Connection, row: Row[Any], limits: Collection[str] = ALL, *, more: bool = True) -> bool:
    """Pauses the run if `more` has to start and one of these limits is reached; returns whether it did. Updates the
    message of a run that is paused for the same reason."""
    fault = over(connection, row, limits)
    if fault is None:
        return False
    if more and row.state in states.PAUSE_RUN.sources:
        pause(connection, row.run_id, fault)
        return True
    if row.state == RunState.PAUSED and (row.error or {}).get("reason") == fault.reason:
        connection.execute(update(runs).where(runs.c.run_id == row.run_id).values(error=fault.model_dump(mode="json")))
    return False


def tick(connection: Connection, lease: RunLease, seconds: float, *, more: bool = True) -> None:
    """Adds active time. If `more` is to follow, the run is paused once its wall time or its tenant's device seconds are
    used up. Raises LeaseLost."""
    hold(connection, lease)
    row = connection.execute(
        update(runs)
        .where(runs.c.run_id == lease.run_id)
        .values(active_seconds=runs.c.active_seconds + seconds)
        .returning(*RUN_HEAD)
    ).one()
    if more and not settle(connection, row, WALL) and row.tenant:
        settle(connection, row, _DEVICE, more=wants_more(connection, lease.run_id))


def pause(connection: Connection, run_id: str, fault: Fault | None = None) -> None:
    """Pauses the run and takes its lease away; trials in progress finish, the others stay queued."""
    error = fault.model_dump(mode="json") if fault else None
    paused = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(states.PAUSE_RUN.sources))
        .values(state=states.PAUSE_RUN.target, error=error, stage="paused", driver="")
        .values(driver_token=runs.c.driver_token + 1)
    )
    if paused.rowcount:
        events.append(connection, run_id, RunStateChanged(state=RunState.PAUSED, error=fault))


def check_resumable(connection: Connection, run_id: str) -> None:
    """Raises BudgetExhausted if the run could start nothing after it was queued again."""
    row = connection.execute(select(*RUN_HEAD).where(runs.c.run_id == run_id)).one()
    if fault := _over_own(row, ALL if wants_more(connection, run_id) else BUT_TRIALS):
        raise BudgetExhausted(f"runs/{run_id}: {fault.message}", metadata={"run": run_name(run_id)})


def _own(run_id: str) -> tuple[Any, ...]:
    return trials.c.run_id == run_id, trials.c.phase != TrialPhase.RERUN


def _count(connection: Connection, run_id: str, state: TrialState) -> int:
    query = select(func.count()).select_from(trials).where(*_own(run_id), trials.c.state == state)
    return connection.scalar(query) or 0


def _number(value: float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
