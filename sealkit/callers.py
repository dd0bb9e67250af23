"""The caller of an rpc: name, role, tenant. Authorization is in `sealkit.rpc.authority`."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

_READS = ("Get", "List", "Watch", "Estimate", "Check", "Answer")


class Role(IntEnum):
    """Each role includes the permissions of those before it."""

    VIEWER = 1
    """Reads."""
    OPERATOR = 2
    """May start, stop and publish."""
    ADMIN = 3
    """Belongs to no tenant, sees all of them, and may act for any."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant`: the caller's own, or the one that an admin acts for; empty: an admin who acts for none."""

    name: str
    role: Role
    tenant: str = ""


NOBODY_KNOWN = Caller("anonymous", Role.ADMIN)
"""Without TLS."""
STRANGER = Caller("", Role.VIEWER)
"""A caller that was not authenticated."""
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY_KNOWN)
"""The caller of the rpc that is being handled."""


def reads(action: str) -> bool:
    """Whether the rpc of this name changes nothing."""
    return action.startswith(_READS)
