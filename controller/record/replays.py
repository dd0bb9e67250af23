"""Replays in the record: trials made again from the manifest of another. They count for nothing in their run, which may
have ended long ago; so no driver looks after them, but every worker does (`controller.replay`)."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from controller.record import quotas, states, trials
from controller.record.database import insert_new
from controller.record.leases import HEAD_LOCKED, gone
from controller.record.quotas import Wish
from controller.record.reach import Act, Reach
from controller.record.requests import first_time
from controller.record.tables import REPLAYED
from controller.record.tables import policies as policies_table
from controller.record.tables import trials as table
from sealkit.errors import NotReplayable, UnknownTrial
from sealkit.resources import Trial, TrialPhase, TrialState
from sealkit.types import digest_of

_CARRIED = ("run_id", "round", "editor", "context_id", "index", "policy", "target_characters", "manifest")
"""What a replay has of the trial that it makes again."""


def add(connection: Connection, act: Act) -> Trial:
    """A new replay of a trial, to be made; the same request again returns the same one. A replay's replay is one of its
    original. Raises UnknownTrial, QuotaExceeded, RequestIdReused; NotReplayable where the trial left no manifest, or
    its policy is not in the record.
    """
    name = act.resource
    original = _row(connection, act.reach, name)
    if original.replay_of:
        return add(connection, replace(act, resource=original.replay_of))
    if not original.manifest:
        why = "it has not ended" if not TrialState(original.state).terminal else "it ended without a manifest"
        raise NotReplayable(
            f"{name} is {original.state}: {why}; only a trial that was tried to its end can be made again",
            metadata={"trial": name, "state": original.state},
        )
    known = select(policies_table.c.name).where(policies_table.c.name == original.policy)
    if connection.scalar(known) is None:
        raise NotReplayable(f"the policy of {name}, {original.policy}, is gone", metadata={"policy": original.policy})
    new = f"{name}.replay-{digest_of(act.reach.home, act.request_id or uuid.uuid4().hex)[:8]}"
    if not first_time(connection, act, digest_of("replay", name), new.rpartition("/")[2]):
        return trials.get(connection, act.reach, new)
    run = connection.execute(HEAD_LOCKED, {"run": original.run_id}).one()
    quotas.check(connection, run.tenant, Wish.of(connection, run, opens=False, more=1))
    carried = {column: original._mapping[column] for column in _CARRIED}
    insert_new(
        connection, table, {**trials.blank(), **carried, "name": new, "phase": TrialPhase.REPLAY, "replay_of": name}
    )
    return trials.get(connection, act.reach, new)


def pair(connection: Connection, reach: Reach, name: str) -> tuple[Trial, Trial]:
    """A replay and the trial that it makes again. Raises UnknownTrial, also where `name` is no replay."""
    replay = trials.get(connection, reach, name)
    if not replay.replay_of:
        raise UnknownTrial(f"{name} is no replay; ReplayTrial makes one of it", metadata={"trial": name})
    return replay, trials.get(connection, reach, replay.replay_of)


def waiting(connection: Connection) -> list[str]:
    """Replays that no worker has, the oldest first."""
    query = select(table.c.name).where(REPLAYED, table.c.state == TrialState.QUEUED).order_by(table.c.create_time)
    return list(connection.scalars(query))


def orphaned(connection: Connection, dead: Collection[str]) -> bool:
    """Whether a dead worker had a replay."""
    return connection.scalar(select(table.c.name).where(*_orphaned(dead)).limit(1)) is not None


def put_back(connection: Connection, dead: Collection[str]) -> None:
    """Queues the replays again that a dead worker had; what it may still find out is late."""
    values = {"state": states.GIVE_BACK_TRIAL.target, "worker": "", "token": table.c.token + 1}
    connection.execute(update(table).where(*_orphaned(dead)).values(**values))


def _orphaned(dead: Collection[str]) -> tuple[Any, ...]:
    return REPLAYED, table.c.state == TrialState.RUNNING, gone(table.c.worker, dead)


def _row(connection: Connection, reach: Reach, name: str) -> Row[Any]:
    row = connection.execute(select(table).where(table.c.name == name, reach.of_run(table.c.run_id))).one_or_none()
    if row is None:
        raise UnknownTrial(f"there is no trial {name}", metadata={"trial": name})
    return row
