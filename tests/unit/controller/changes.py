"""Changes that somebody asks for."""

from __future__ import annotations

from controller.db.access import ChangeRequest
from sealkit.callers import NOBODY_KNOWN, Caller, Role


def change(resource: str, request_id: str = "", caller: Caller = NOBODY_KNOWN, action: str = "Change") -> ChangeRequest:
    """By an admin who acts for nobody, unless told otherwise."""
    return ChangeRequest(caller, action, resource, request_id)


def operator(tenant: str) -> Caller:
    """One who may do what a tenant may."""
    return Caller(f"{tenant}-operator", Role.OPERATOR, tenant)
