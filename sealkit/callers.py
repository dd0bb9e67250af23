"""Who calls: a name, a role, a tenant. Whom to let in is decided in `sealkit.rpc.authority`."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

_READS = ("Get", "List", "Watch", "Estimate", "Check")


class Role(IntEnum):
    """Each may do what those before it may."""

    VIEWER = 1
    """Reads."""
    OPERATOR = 2
    """Starts, stops, publishes."""
    ADMIN = 3
    """Belongs to no tenant, sees all of them, and may act for any."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant`: the one that it belongs to, or that an admin acts for; empty: an admin who acts for none."""

    name: str
    role: Role
    tenant: str = ""


NOBODY_KNOWN = Caller("anonymous", Role.ADMIN)
"""Without TLS."""
STRANGER = Caller("", Role.VIEWER)
"""Who was not let in."""
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY_KNOWN)
"""Whose call is being handled."""


def reads(action: str) -> bool:
    """Whether the rpc of this name changes nothing."""
    return action.startswith(_READS)
