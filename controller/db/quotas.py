"""Quotas of tenants and their usage today.

Quotas are set in the callers file. The API writes them to the database (`replace`), because workers have no callers
file. Device seconds are added to the tenant's row as trials and M-steps end. A transaction that locks both that row and
a run's row locks the run's row first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, update

from controller.db.database import insert_new
from controller.db.tables import now, runs, tenants, trials
from sealkit.errors import QuotaExceeded
from sealkit.faults import fault_of
from sealkit.resources import Fault, Quotas, RunState, TrialPhase

_ADVICE = {
    "runs_at_once": "wait for a run to end, or pause or cancel one",
    "trials_in_run": "plan fewer trials (`seal run --dry-run` counts them)",
    "device_seconds_a_day": "continue after 00:00 UTC",
    "highest_priority": "lower scheduling.priority",
}
_OPEN = runs.c.state.in_([RunState.QUEUED, RunState.RUNNING])


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """What to check a tenant's quotas for: a run with so many trials at this priority. `opens`: the run was not
    active."""

    trials: int
    priority: int
    opens: bool = True

    @classmethod
    def of(cls, connection: Connection, run: Row[Any], *, opens: bool, more: int = 0) -> QuotaRequest:
        """The request to continue a run, with `more` reruns."""
        reruns = select(func.count()).where(trials.c.run_id == run.run_id, trials.c.phase == TrialPhase.RERUN)
        return cls(run.trials_total + (connection.scalar(reruns) or 0) + more, run.priority, opens)


def replace(connection: Connection, quotas: Mapping[str, Quotas]) -> None:
    """Replaces all stored quotas by those of the callers file."""
    known = {row.tenant: row.quotas for row in connection.execute(select(tenants.c.tenant, tenants.c.quotas))}
    for tenant in sorted({*known, *quotas}):
        values = quotas.get(tenant, Quotas()).model_dump()
        if known.get(tenant) != values:
            insert_new(connection, tenants, _blank(tenant))
            connection.execute(update(tenants).where(tenants.c.tenant == tenant).values(quotas=values))


def check(connection: Connection, tenant: str, request: QuotaRequest) -> None:
    """Raises QuotaExceeded if the request exceeds a quota. Locks the tenant's row, so checks are serialised."""
    row = connection.execute(select(tenants).where(tenants.c.tenant == tenant).with_for_update()).one_or_none()
    if row is None:
        return
    quotas = Quotas.from_stored(row.quotas)
    if (limit := quotas.runs_at_once) and request.opens and (under_way := _under_way(connection, tenant)) >= limit:
        raise _exceeded(tenant, "runs_at_once", f"{under_way} of {limit} are active")
    if (limit := quotas.trials_in_run) and request.trials > limit:
        raise _exceeded(
            tenant, "trials_in_run", f"the run has {request.trials:,} of at most {limit:,}, reruns included"
        )
    if fault := _spent(row):
        raise _exceeded(tenant, "device_seconds_a_day", fault)
    if (limit := quotas.highest_priority) and request.priority > limit:
        raise _exceeded(tenant, "highest_priority", f"the run has {request.priority}, which is above {limit}")


def spend(connection: Connection, tenant: str, device_seconds: float) -> None:
    """Adds device seconds to a tenant's usage; negative if they will be added again later."""
    if not (tenant and device_seconds):
        return
    today = _today()
    counted = case((tenants.c.day == today, tenants.c.device_seconds), else_=0.0) + device_seconds
    count = update(tenants).where(tenants.c.tenant == tenant).values(day=today, device_seconds=counted)
    if not connection.execute(count).rowcount:
        insert_new(connection, tenants, _blank(tenant))
        connection.execute(count)


def over(connection: Connection, tenant: str) -> Fault | None:
    """Why no more of the tenant's work may start today; None if it may."""
    try:
        check_spent(connection, tenant)
    except QuotaExceeded as error:
        return fault_of(error)
    return None


def check_spent(connection: Connection, tenant: str) -> None:
    """Raises QuotaExceeded if no more of the tenant's work may start today."""
    row = connection.execute(select(tenants).where(tenants.c.tenant == tenant)).one_or_none() if tenant else None
    if row is not None and (said := _spent(row)):
        raise _exceeded(tenant, "device_seconds_a_day", said)


def used(connection: Connection, tenant: str) -> Quotas:
    """The tenant's current usage."""
    row = connection.execute(select(tenants).where(tenants.c.tenant == tenant)).one_or_none()
    most = select(func.max(runs.c.trials_total), func.max(runs.c.priority)).where(runs.c.tenant == tenant, _OPEN)
    trials_total, priority = connection.execute(most).one()
    return Quotas(
        runs_at_once=_under_way(connection, tenant),
        trials_in_run=trials_total or 0,
        device_seconds_a_day=max(0.0, _today_of(row)) if row is not None else 0.0,
        highest_priority=max(0, priority or 0),
    )


def _under_way(connection: Connection, tenant: str) -> int:
    return connection.scalar(select(func.count()).select_from(runs).where(runs.c.tenant == tenant, _OPEN)) or 0


def _spent(row: Row[Any]) -> str:
    """A message if today's device seconds are used up, else empty."""
    limit, taken = Quotas.from_stored(row.quotas).device_seconds_a_day, _today_of(row)
    return f"{taken:,.1f} of {limit:,.1f} are used today" if limit and taken >= limit else ""


def _today_of(row: Row[Any]) -> float:
    return float(row.device_seconds) if row.day == _today() else 0.0


def _today() -> str:
    return now().date().isoformat()


def _blank(tenant: str) -> dict[str, Any]:
    return {"tenant": tenant, "quotas": Quotas().model_dump(), "day": _today(), "device_seconds": 0.0}


def _exceeded(tenant: str, quota: str, said: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"quota {quota} of tenant {tenant}: {said}; {_ADVICE[quota]}, or ask the operator for more",
        metadata={"tenant": tenant, "quota": quota},
        fields=((quota, said),),
    )
