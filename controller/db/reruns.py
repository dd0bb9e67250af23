"""Reruns in the database: trials made again from another trial's manifest. They are excluded from their run's results.
The run may have ended long ago, so every worker queues them (`controller.trial.rerun`), not a driver."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from controller.db import quotas, runs, states, trials
from controller.db.access import AccessScope, ChangeRequest
from controller.db.database import insert_new
from controller.db.leases import HEAD_LOCKED, unheld
from controller.db.manifest import Manifest, read_manifest
from controller.db.quotas import QuotaRequest
from controller.db.requests import first_time
from controller.db.tables import RERUNS
from controller.db.tables import policies as policies_table
from controller.db.tables import trials as table
from sealkit.errors import NotReproducible, UnknownTrial
from sealkit.names import id_of, run_name
from sealkit.resources import Trial, TrialPhase, TrialState
from sealkit.types import digest_of

_CARRIED = ("run_id", "round", "editor", "context_id", "index", "policy", "target_characters", "manifest")
"""Columns that a rerun copies from the original trial."""


def add(connection: Connection, change: ChangeRequest) -> Trial:
    """A new rerun of a trial; the same request again returns the same one. A rerun of a rerun is one of its original.
    Raises UnknownTrial, ConfigOutdated, QuotaExceeded, RequestIdReused; NotReproducible if the trial has no manifest or
    one that this version cannot read, or if its policy is not in the database.
    """
    name = change.resource
    original = _row(connection, change.scope, name)
    if original.rerun_of:
        return add(connection, replace(change, resource=original.rerun_of))
    if read_manifest(name, original.manifest) is None:
        why = "it has not ended" if not TrialState(original.state).terminal else "it ended without a manifest"
        raise NotReproducible(
            f"{name} is {original.state}: {why}; only a trial that ended with a score or a rejection can be rerun",
            metadata={"trial": name, "state": original.state},
        )
    runs.stored_config(connection, original.run_id).in_full(run_name(original.run_id))
    known = select(policies_table.c.name).where(policies_table.c.name == original.policy)
    if connection.scalar(known) is None:
        raise NotReproducible(
            f"the policy of {name}, {original.policy}, no longer exists", metadata={"policy": original.policy}
        )
    new = f"{name}.rerun-{digest_of(change.scope.home, change.request_id or uuid.uuid4().hex)[:8]}"
    if not first_time(connection, change, digest_of("rerun", name), id_of(new)):
        return trials.get(connection, change.scope, new)
    run = connection.execute(HEAD_LOCKED, {"run": original.run_id}).one()
    quotas.check(connection, run.tenant, QuotaRequest.of(connection, run, opens=False, more=1))
    carried = {column: original._mapping[column] for column in _CARRIED}
    insert_new(
        connection, table, {**trials.blank(), **carried, "name": new, "phase": TrialPhase.RERUN, "rerun_of": name}
    )
    return trials.get(connection, change.scope, new)


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial with its manifest, if it has one."""

    trial: Trial
    manifest: Manifest | None


def pair(connection: Connection, scope: AccessScope, name: str) -> tuple[Tried, Tried]:
    """A rerun and its original trial. Raises UnknownTrial, also if `name` is not a rerun; NotReproducible if this
    version cannot read one of their manifests."""
    rerun = _tried(connection, scope, name)
    if not rerun.trial.rerun_of:
        raise UnknownTrial(f"{name} is not a rerun; RerunTrial makes one of it", metadata={"trial": name})
    return rerun, _tried(connection, scope, rerun.trial.rerun_of)


def _tried(connection: Connection, scope: AccessScope, name: str) -> Tried:
    trial = trials.get(connection, scope, name)
    return Tried(trial, read_manifest(name, trial.manifest))


def waiting(connection: Connection) -> list[str]:
    """Queued reruns, oldest first."""
    query = select(table.c.name).where(RERUNS, table.c.state == TrialState.QUEUED).order_by(table.c.create_time)
    return list(connection.scalars(query))


def orphaned(connection: Connection, dead: Collection[str]) -> bool:
    """Whether a dead worker had a rerun."""
    return connection.scalar(select(table.c.name).where(*_orphaned(dead)).limit(1)) is not None


def put_back(connection: Connection, dead: Collection[str]) -> None:
    """Queues the reruns of dead workers again; their results will be late."""
    values = {"state": states.GIVE_BACK_TRIAL.target, "worker": "", "token": table.c.token + 1}
    connection.execute(update(table).where(*_orphaned(dead)).values(**values))


def _orphaned(dead: Collection[str]) -> tuple[Any, ...]:
    return RERUNS, table.c.state == TrialState.RUNNING, unheld(table.c.worker, dead)


def _row(connection: Connection, scope: AccessScope, name: str) -> Row[Any]:
    row = connection.execute(select(table).where(table.c.name == name, scope.of_run(table.c.run_id))).one_or_none()
    if row is None:
        raise UnknownTrial(f"there is no trial {name}", metadata={"trial": name})
    return row
