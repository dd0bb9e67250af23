"""Changes that somebody asks for."""

from __future__ import annotations

from controller.record.reach import Act
from sealkit.rpc.authority import NOBODY_KNOWN, Caller, Role


def act(resource: str, request_id: str = "", caller: Caller = NOBODY_KNOWN, action: str = "Change") -> Act:
    """By an admin who acts for nobody, unless told otherwise."""
    return Act(caller, action, resource, request_id)


def operator(tenant: str) -> Caller:
    """One who may do what a tenant may."""
    return Caller(f"{tenant}-operator", Role.OPERATOR, tenant)
