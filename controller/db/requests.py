"""Requests that changed something: the same one again, by its id, changes nothing more. Ids are each tenant's own.

Every change passes through here, in its own transaction; so this is also where it is entered in the audit log.
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
    Raises RequestIdReused where its id came before with other content."""
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
            f"request_id {change.request_id!r} came before with other content; make a new id for a new request",
            metadata={"request_id": change.request_id},
        )
    return False
