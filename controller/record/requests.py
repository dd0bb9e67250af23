"""Requests that changed something: the same one again, by its id, changes nothing more."""

from __future__ import annotations

from sqlalchemy import Connection, select

from controller.record.database import insert_new
from controller.record.tables import now, requests
from sealkit.errors import RequestIdReused


def first_time(connection: Connection, request_id: str, digest: str, subject: str) -> bool:
    """Whether this request, on `subject` (a run's id or an alias's), is new; one without an id always is. Raises
    RequestIdReused where its id came before with other content."""
    if not request_id:
        return True
    row = {"request_id": request_id, "digest": digest, "run_id": subject, "create_time": now()}
    if insert_new(connection, requests, row):
        return True
    before = connection.scalar(select(requests.c.digest).where(requests.c.request_id == request_id))
    if before != digest:
        raise RequestIdReused(
            f"request_id {request_id!r} came before with other content; make a new id for a new request",
            metadata={"request_id": request_id},
        )
    return False
