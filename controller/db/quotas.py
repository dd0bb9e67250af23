"""What tenants may have and take, and what they have taken today.

The callers file says the quotas; the API tells the record (`tell`), for workers, who see no callers file, heed them
too. Device seconds are counted on the tenant's row as trials and M-steps end. Whoever locks that row and a run's locks
the run's first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, update

from controller.db.database import insert_new
from controller.db.tables import now, runs, tenants, trials
from sealkit.errors import QuotaExceeded
from sealkit.resources import Fault, Quotas, RunState, TrialPhase

_WAY_OUT = {
    "runs_at_once": "wait for a run to end, or pause or cancel one",
    "trials_in_run": "plan fewer trials (`seal run --dry-run` counts them)",
    "device_seconds_a_day": "go on after 00:00 UTC",
    "highest_priority": "lower scheduling.priority",
}
_OPEN = runs.c.state.in_([RunState.QUEUED, RunState.RUNNING])


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant is to be allowed: a run with so many trials at this priority. `opens`: it was not under way."""

    trials: int
    priority: int
    opens: bool = True

    @classmethod
    def of(cls, connection: Connection, run: Row[Any], *, opens: bool, more: int = 0) -> Wish:
        """To go on with a run, with `more` reruns."""
        reruns = select(func.count()).where(trials.c.run_id == run.run_id, trials.c.phase == TrialPhase.RERUN)
        return cls(run.trials_total + (connection.scalar(reruns) or 0) + more, run.priority, opens)


def tell(connection: Connection, quotas: Mapping[str, Quotas]) -> None:
    """Takes over the quotas of the callers file, all of them: a tenant that it does not name has none."""
    known = {row.tenant: row.quotas for row in connection.execute(select(tenants.c.tenant, tenants.c.quotas))}
    for tenant in sorted({*known, *quotas}):
        values = quotas.get(tenant, Quotas()).model_dump()
        if known.get(tenant) != values:
            insert_new(connection, tenants, _blank(tenant))
            connection.execute(update(tenants).where(tenants.c.tenant == tenant).values(quotas=values))


def check(connection: Connection, tenant: str, wish: Wish) -> None:
    """Raises QuotaExceeded where the tenant may not have that too. Until the transaction ends no other is checked."""
    row = connection.execute(select(tenants).where(tenants.c.tenant == tenant).with_for_update()).one_or_none()
    if row is None:
        return
    quotas = Quotas.from_stored(row.quotas)
    if (limit := quotas.runs_at_once) and wish.opens and (under_way := _under_way(connection, tenant)) >= limit:
        raise _exceeded(tenant, "runs_at_once", f"{under_way} of {limit} are under way")
    if (limit := quotas.trials_in_run) and wish.trials > limit:
        raise _exceeded(tenant, "trials_in_run", f"the run has {wish.trials:,} of at most {limit:,}, reruns included")
    if fault := _spent(row):
        raise _exceeded(tenant, "device_seconds_a_day", fault)
    if (limit := quotas.highest_priority) and wish.priority > limit:
        raise _exceeded(tenant, "highest_priority", f"the run has {wish.priority}, which is above {limit}")


def spend(connection: Connection, tenant: str, device_seconds: float) -> None:
    """Counts what a tenant's work took; negative for what is counted again later."""
    if not (tenant and device_seconds):
        return
    today = _today()
    counted = case((tenants.c.day == today, tenants.c.device_seconds), else_=0.0) + device_seconds
    count = update(tenants).where(tenants.c.tenant == tenant).values(day=today, device_seconds=counted)
    if not connection.execute(count).rowcount:
        insert_new(connection, tenants, _blank(tenant))
        connection.execute(count)


def over(connection: Connection, tenant: str) -> Fault | None:
    """Why no more of the tenant's work may start today; None: it may."""
    if not tenant:
        return None
    row = connection.execute(select(tenants).where(tenants.c.tenant == tenant)).one_or_none()
    if row is None or not (said := _spent(row)):
        return None
    error = _exceeded(tenant, "device_seconds_a_day", said)
    return Fault(code=8, reason=error.reason, message=error.message)  # RESOURCE_EXHAUSTED


def used(connection: Connection, tenant: str) -> Quotas:
    """What a tenant has and takes now."""
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
    """How much of today's device seconds, where none is left."""
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
        f"quota {quota} of tenant {tenant}: {said}; {_WAY_OUT[quota]}, or ask the operator for more",
        metadata={"tenant": tenant, "quota": quota},
        fields=((quota, said),),
    )
