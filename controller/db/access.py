"""What a caller may see: everything, or what belongs to one tenant. Whatever the database does for a caller takes an
`AccessScope` (to read) or a `ChangeRequest` (to change something), so no query can forget to ask whose a row is. A row
outside the scope is reported as not existing.

A run has a tenant; trials, contexts, policies, events and reruns have their run's. An alias has its own, for it is
named within a tenant.
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
    """`tenant`: whose rows are visible; None: everybody's."""

    tenant: str | None

    @classmethod
    def of(cls, caller: Caller) -> AccessScope:
        """Its tenant's; everything for an admin who acts for none."""
        return cls(None if caller.role is Role.ADMIN and not caller.tenant else caller.tenant)

    @property
    def home(self) -> str:
        """The tenant of what is made, and the one in which aliases and request ids are looked up."""
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
"""The controller's own."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change that a caller asks for: `action` is the rpc's name, `resource` the thing's, `request_id` may be empty;
    `trace` is its place in a trace, if it is traced."""

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
