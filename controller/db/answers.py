"""Which policy answers for an alias, and what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from controller.db import aliases, contexts, documents, quotas, runs, trials
from controller.db import policies as versions
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.documents import StoredDocument
from controller.db.tables import policies
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.names import id_of, run_id_of
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


def document_of(connection: Connection, policy: str, adapter: str) -> str:
    """The name of the document that a version learned with the adapter of this digest; empty: none. Raises
    UnknownPolicy."""
    version = versions.get(connection, FULL_ACCESS, policy)
    kept = trials.existing(connection, version.trials)
    of_adapter = [trial.name for trial in kept if trial.adapter and trial.adapter.digest == adapter]
    return next((one.document.name for one in documents.known(connection, of_adapter)), "")


def trained_on(connection: Connection, policy: str) -> tuple[RunConfig, list[tuple[StoredDocument, list[Context]]]]:
    """The documents that a version was trained on, each with the passages of its trials, and the config of its run.
    Raises UnknownPolicy."""
    version = versions.get(connection, FULL_ACCESS, policy)
    passages = contexts.of_trials(connection, trials.existing(connection, version.trials))
    known = [
        (one.document, [passages[trial] for trial in one.trials]) for one in documents.known(connection, version.trials)
    ]
    return runs.stored_config(connection, run_id_of(version.run)).config, known
