"""Access: a caller sees everything, or one tenant's rows. Every function that a caller's request reaches takes an
`AccessScope` (to read) or a `ChangeRequest` (to write), so no query can omit the check. A row outside the scope is
reported as not existing.

A run has a tenant; its trials, contexts, policies, events and reruns belong to the same one. An alias has its own
tenant, because its name is unique per tenant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Column, ColumnElement, select, true

from controller.db.tables import aliases, runs
from sealkit.callers import Caller, Role
from sealkit.names import id_of
from sealkit.observability import tracing


@dataclass(frozen=True, slots=True)
class AccessScope:
    """`tenant`: the tenant whose rows are visible; None: all rows."""

    tenant: str | None

    @classmethod
    def of(cls, caller: Caller) -> AccessScope:
        """The rows of the caller's tenant; all rows for an admin that acts for no tenant."""
        return cls(None if caller.role is Role.ADMIN and not caller.tenant else caller.tenant)

    @property
    def home(self) -> str:
        """The tenant of new rows, and the one in which aliases and request ids are looked up."""
        return self.tenant or ""

    @property
    def runs(self) -> ColumnElement[bool]:
        """Which runs are visible."""
        return true() if self.tenant is None else runs.c.tenant == self.tenant

    @property
    def aliases(self) -> ColumnElement[bool]:
        """Which aliases are listed."""
        return true() if self.tenant is None else aliases.c.tenant == self.tenant

    def of_run(self, run_id: Column[str]) -> ColumnElement[bool]:
        """Which rows of another table are visible: those of visible runs."""
        return true() if self.tenant is None else run_id.in_(select(runs.c.run_id).where(self.runs))


FULL_ACCESS = AccessScope(None)
"""The scope of the controller itself."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change that a caller asks for: `action` is the rpc's name, `resource` the name of the resource, `request_id`
    may be empty, `trace` is the trace context, if any."""

    caller: Caller
    action: str
    resource: str
    request_id: str = ""
    trace: str = field(default_factory=tracing.current)

    @property
    def scope(self) -> AccessScope:
        """What the caller may see."""
        return AccessScope.of(self.caller)

    @property
    def id(self) -> str:
        """The last part of the resource's name: `x` of `runs/x`."""
        return id_of(self.resource)
