"""Idempotent requests: a repeated request with the same id changes nothing. Ids are unique per tenant.

Every change by a caller goes through here, in its transaction, so it is entered in the audit log here too.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from controller.db import audit
from controller.db.access import ChangeRequest
from controller.db.database import insert_new
from controller.db.tables import now, requests
from sealkit.errors import RequestIdReused


def first_time(connection: Connection, change: ChangeRequest, digest: str, detail: str = "") -> bool:
    """Whether this request is new; one without an id always is. A new one is entered in the audit log, with `detail`.
    Raises RequestIdReused if its id was used before with other content."""
    if change.request_id and not _is_new(connection, change, digest):
        return False
    audit.enter(connection, change, detail=detail)
    return True


def _is_new(connection: Connection, change: ChangeRequest, digest: str) -> bool:
    key = {"tenant": change.scope.home, "request_id": change.request_id}
    if insert_new(connection, requests, {**key, "digest": digest, "run_id": change.id, "create_time": now()}):
        return True
    if connection.scalar(select(requests.c.digest).filter_by(**key)) != digest:
        raise RequestIdReused(
            f"request_id {change.request_id!r} was used before with other content; use a new id for a new request",
            metadata={"request_id": change.request_id},
        )
    return False
