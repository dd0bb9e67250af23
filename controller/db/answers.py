"""Which policy answers for an alias."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from controller.db import aliases, quotas
from controller.db.access import AccessScope
from controller.db.tables import policies
from sealkit.names import id_of
from sealkit.resources import AnswerBegun, Editor
from sealkit.types import AdapterRef, Policy


@dataclass(frozen=True, slots=True)
class Version:
    """A policy that answers; `base_model` is the digest of the model that it was trained on, empty for the base model
    itself."""

    begun: AnswerBegun
    policy: Policy
    base_model: str = ""


BASE = Version(AnswerBegun(), Policy(name=Editor.BASE))


def version_of(connection: Connection, scope: AccessScope, alias: str) -> Version:
    """The policy that `aliases/{id}` points to now; the base model if `alias` is empty. Raises UnknownAlias, and
    QuotaExceeded if the tenant's device seconds of today are used up."""
    quotas.check_spent(connection, scope.home)
    if not alias:
        return BASE
    policy = aliases.get(connection, scope, id_of(alias)).policy
    query = select(policies.c.adapter, policies.c.base_model).where(policies.c.name == policy)
    row = connection.execute(query).one()
    adapter = AdapterRef.from_stored(row.adapter) if row.adapter else None
    begun = AnswerBegun(alias=alias, policy=policy, adapter=adapter.digest if adapter else "")
    return Version(begun, Policy(name=policy, adapter=adapter), row.base_model)
