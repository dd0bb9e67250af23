"""The audit log of changes and refused changes. A change and its entry are one transaction. Entries are only inserted.
They contain names, numbers and reasons, but no text of a dataset or config and no error message that quotes one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select

from controller.db.access import AccessScope, ChangeRequest
from controller.db.pages import Page, key_of, size_of, token_after
from controller.db.tables import audit, now, runs
from sealkit.errors import InvalidInput, SealError
from sealkit.names import is_of_run, run_id_of, run_name
from sealkit.resources import AuditEntry

DONE = "OK"
"""Outcome of a change that took effect."""
_DETAIL_LENGTH = 200


def enter(connection: Connection, change: ChangeRequest, *, outcome: str = DONE, detail: str = "") -> None:
    """Enters a change, in its transaction."""
    _add(
        connection,
        caller=change.caller.name,
        role=change.caller.role.name.lower(),
        tenant=_tenant(connection, change) if outcome == DONE else change.scope.home,
        action=change.action,
        resource=change.resource,
        request_id=change.request_id,
        outcome=outcome,
        detail=detail,
    )


def enter_refusal(connection: Connection, change: ChangeRequest, error: SealError) -> None:
    """Enters a change that was refused, without text that the error quotes from the input."""
    detail = "" if isinstance(error, InvalidInput) else error.message
    enter(connection, change, outcome=error.reason, detail=detail)


def enter_of_run(connection: Connection, run_id: str, **entry: str) -> None:
    """Enters a change by a run itself: `tenant`, `action`, `resource`, `detail`."""
    _add(connection, caller=run_name(run_id), role="run", request_id="", outcome=DONE, **entry)


def page(
    connection: Connection, scope: AccessScope, size: int, token: str, *, resource: str = "", caller: str = ""
) -> Page[AuditEntry]:
    """Entries, newest first: all, or those of a resource and its children, or those of a caller. Raises InvalidInput on
    a bad token."""
    query = select(audit).order_by(audit.c.number.desc()).limit(size_of(size) + 1)
    if scope.tenant is not None:
        query = query.where(audit.c.tenant == scope.tenant)
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


def _tenant(connection: Connection, change: ChangeRequest) -> str:
    """The tenant of the changed resource: that of the run if the caller is an admin."""
    if change.scope.tenant is None and is_of_run(change.resource):
        of_run = runs.c.run_id == run_id_of(change.resource)
        return connection.scalar(select(runs.c.tenant).where(of_run)) or ""
    return change.scope.home


def _add(connection: Connection, *, detail: str, **entry: str) -> None:
    connection.execute(insert(audit).values(time=now(), detail=detail[:_DETAIL_LENGTH], **entry))


def _entry(row: Row[Any]) -> AuditEntry:
    named = {field: row._mapping[field] for field in AuditEntry.model_fields if field != "name"}
    return AuditEntry(name=f"auditEntries/{row.number}", **named)
