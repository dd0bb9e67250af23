"""What a caller can reach: everything, or one tenant's. What the record does for a caller takes a `Reach` (to read) or
an `Act` (to change something), so that nobody forgets to ask whose a thing is. What is out of reach does not exist.

A run has a tenant; trials, contexts, policies, events and replays have their run's. An alias has its own, for it is
named within a tenant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Column, ColumnElement, select, true

from controller.record.tables import aliases, runs
from sealkit import tracing
from sealkit.rpc.authority import Caller, Role


@dataclass(frozen=True, slots=True)
class Reach:
    """`tenant`: whose things are reached; None: everybody's."""

    tenant: str | None

    @classmethod
    def of(cls, caller: Caller) -> Reach:
        """Its tenant's; everything for an admin who acts for none."""
        return cls(None if caller.role is Role.ADMIN and not caller.tenant else caller.tenant)

    @property
    def home(self) -> str:
        """The tenant of what is made, and the one in which aliases and request ids are looked up."""
        return self.tenant or ""

    @property
    def runs(self) -> ColumnElement[bool]:
        """Which runs are reached."""
        return true() if self.tenant is None else runs.c.tenant == self.tenant

    @property
    def aliases(self) -> ColumnElement[bool]:
        """Which aliases are listed."""
        return true() if self.tenant is None else aliases.c.tenant == self.tenant

    def of_run(self, run_id: Column[str]) -> ColumnElement[bool]:
        """Which rows of another table are reached: those of runs that are."""
        return true() if self.tenant is None else run_id.in_(select(runs.c.run_id).where(self.runs))


EVERYTHING = Reach(None)
"""What the controller itself reaches."""


@dataclass(frozen=True, slots=True)
class Act:
    """A change that a caller asks for: `action` is the rpc's name, `resource` the thing's, `request_id` may be empty;
    `trace` is its place in a trace, if it is traced."""

    caller: Caller
    action: str
    resource: str
    request_id: str = ""
    trace: str = field(default_factory=tracing.current)

    @property
    def reach(self) -> Reach:
        """What the caller can reach."""
        return Reach.of(self.caller)

    @property
    def id(self) -> str:
        """The last part of a name of two: `x` of `runs/x`."""
        return self.resource.partition("/")[2]
