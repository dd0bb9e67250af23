"""The audit log: who changed what, and whose change was refused. A change and its entry are one transaction. Entries
are only ever added. They hold names, numbers and reasons: no text of a dataset, a config or an error about one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select

from controller.record.pages import Page, key_of, size_of, token_after
from controller.record.reach import Act, Reach
from controller.record.tables import audit, now, runs
from sealkit.errors import InvalidInput, SealError
from sealkit.resources import AuditEntry

DONE = "OK"
"""Outcome of a change that was made."""
_DETAIL_LENGTH = 200


def enter(connection: Connection, act: Act, *, outcome: str = DONE, detail: str = "") -> None:
    """Enters a change, in the transaction that makes it."""
    _add(
        connection,
        caller=act.caller.name,
        role=act.caller.role.name.lower(),
        tenant=_tenant(connection, act) if outcome == DONE else act.reach.home,
        action=act.action,
        resource=act.resource,
        request_id=act.request_id,
        outcome=outcome,
        detail=detail,
    )


def enter_refusal(connection: Connection, act: Act, error: SealError) -> None:
    """Enters a change that was refused. What a message about bad input quotes stays out."""
    detail = "" if isinstance(error, InvalidInput) else error.message
    enter(connection, act, outcome=error.reason, detail=detail)


def enter_of_run(connection: Connection, run_id: str, **entry: str) -> None:
    """Enters what a run did by itself: `tenant`, `action`, `resource`, `detail`."""
    _add(connection, caller=f"runs/{run_id}", role="run", request_id="", outcome=DONE, **entry)


def page(
    connection: Connection, reach: Reach, size: int, token: str, *, resource: str = "", caller: str = ""
) -> Page[AuditEntry]:
    """Entries, newest first: all, or those on a resource and what lies under its name, or those of a caller. Raises
    InvalidInput on a bad token."""
    query = select(audit).order_by(audit.c.number.desc()).limit(size_of(size) + 1)
    if reach.tenant is not None:
        query = query.where(audit.c.tenant == reach.tenant)
    if resource:
        under = audit.c.resource.startswith(f"{resource}/", autoescape=True)
        query = query.where(or_(audit.c.resource == resource, under))
    if caller:
        query = query.where(audit.c.caller == caller)
    if key := key_of(token, int):
        query = query.where(audit.c.number < key[0])
    rows = connection.execute(query).all()
    shown = rows[: size_of(size)]
    more = len(rows) > len(shown)
    return Page([_entry(row) for row in shown], token_after([shown[-1].number]) if more else "")


def _tenant(connection: Connection, act: Act) -> str:
    """Whose the changed thing is: where an admin reaches everything, that of the run."""
    kind, *rest = act.resource.split("/")
    if act.reach.tenant is None and kind == "runs":
        return connection.scalar(select(runs.c.tenant).where(runs.c.run_id == rest[0])) or ""
    return act.reach.home


def _add(connection: Connection, *, detail: str, **entry: str) -> None:
    connection.execute(insert(audit).values(time=now(), detail=detail[:_DETAIL_LENGTH], **entry))


def _entry(row: Row[Any]) -> AuditEntry:
    named = {field: row._mapping[field] for field in AuditEntry.model_fields if field != "name"}
    return AuditEntry(name=f"auditEntries/{row.number}", **named)
