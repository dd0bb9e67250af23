"""Policies and the rounds that make them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, update

from controller.db import aliases, audit, budgets, documents, events, quotas
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.database import insert_new
from controller.db.documents import DocumentOutcome
from controller.db.leases import RunLease, hold
from controller.db.pages import Page, key_of, size_of, token_after
from controller.db.tables import now, policies, rounds, runs
from sealkit.errors import ModelMismatch, UnknownPolicy
from sealkit.names import alias_name, policy_name, round_name, run_name
from sealkit.resources import PolicyTrained, PolicyVersion, RoundFinished
from sealkit.types import Usage

_MEASURED = ("retention", "divergence", "forgetting", "scores", "verdicts", "gate", "gate_reason", "usage")
_LISTED = [column for column in policies.c if column.name != "verdicts"]
"""A policy's row without the long column."""


def get(connection: Connection, scope: AccessScope, name: str) -> PolicyVersion:
    """One policy. Raises UnknownPolicy."""
    return _policy(_row(connection, scope, name))


def page(connection: Connection, scope: AccessScope, size: int, token: str) -> Page[PolicyVersion]:
    """Policies, newest first. Raises InvalidInput on a bad token."""
    within = scope.of_run(policies.c.run_id)
    newest_first = policies.c.create_time.desc(), policies.c.name.desc()
    query = select(*_LISTED).where(within).order_by(*newest_first).limit(size_of(size) + 1)
    if key := key_of(token, str):
        last = select(policies.c.create_time).where(policies.c.name == key[0], within).scalar_subquery()
        same = and_(policies.c.create_time == last, policies.c.name < key[0])
        query = query.where(or_(policies.c.create_time < last, same))
    rows = connection.execute(query).all()
    shown = rows[: size_of(size)]
    return Page([_policy(row) for row in shown], token_after([shown[-1].name]) if len(rows) > len(shown) else "")


def of_run(connection: Connection, run_id: str) -> list[PolicyVersion]:
    """The policies of a run, oldest first, without verdicts; the first is θ_0."""
    rows = connection.execute(select(*_LISTED).where(policies.c.run_id == run_id).order_by(policies.c.version))
    return [_policy(row) for row in rows]


def after_rounds(connection: Connection, run_id: str) -> list[str]:
    """Names of θ_{t+1} of the finished rounds of a run, in order."""
    query = select(rounds.c.next_policy).where(rounds.c.run_id == run_id, rounds.c.next_policy.is_not(None))
    return [name or "" for name in connection.scalars(query.order_by(rounds.c.round))]


def rounds_of(connection: Connection, run_id: str) -> dict[int, tuple[str, str]]:
    """By index, the names of θ_t and θ_{t+1} of the rounds of a run; the second is empty until the round has ended."""
    columns = rounds.c.round, rounds.c.policy, rounds.c.next_policy
    rows = connection.execute(select(*columns).where(rounds.c.run_id == run_id))
    return {row.round: (row.policy, row.next_policy or "") for row in rows}


def made_in(connection: Connection, run_id: str, round_index: int) -> PolicyVersion | None:
    """The policy that a round made, if it is stored."""
    row = connection.execute(select(policies).filter_by(run_id=run_id, round=round_index)).one_or_none()
    return _policy(row) if row else None


def begin(connection: Connection, lease: RunLease, *, start_policy: str, base_model: str, domain: str) -> PolicyVersion:
    """θ_0 of a run, `policies/{run}-0`: the base model, or a copy of the policy that the run starts from, so that it
    has its own scores. A run that learns on an alias starts from the version that the alias points to when the run
    first begins, with the trials of that version, which must be of the run's `domain`.

    Raises LeaseLost; ModelMismatch if that policy has another base model; AliasMoved; what
    `aliases.version_to_continue` raises.
    """
    run = hold(connection, lease)
    adapter, trials = None, list[str]()
    if run.alias:
        start_policy = _start_on_alias(connection, run, domain)
    if start_policy:
        start = _row(connection, FULL_ACCESS, start_policy)  # access was checked when the run was created
        if start.base_model != base_model:
            raise ModelMismatch(
                f"{start_policy} was trained on base model {start.base_model}, but the services have {base_model}; "
                "start the services with that model, or the run from another policy"
            )
        adapter, trials = start.adapter, start.trials if run.alias else []
    name = policy_name(lease.run_id, 0)
    row: dict[str, Any] = {
        "name": name,
        "run_id": lease.run_id,
        "base_model": base_model,
        "parent": start_policy,
        "version": 0,
        "round": None,
        "adapter": adapter,
        "trials": trials,
        "create_time": now(),
        "usage": Usage().model_dump(),
    }
    insert_new(connection, policies, row)
    return get(connection, FULL_ACCESS, name)


def _start_on_alias(connection: Connection, run: Row[Any], domain: str) -> str:
    """The version that a run on an alias starts from: `aliases.version_to_continue`, or for a run that began before the
    one that it started from, if the alias is still where the run left it."""
    first = connection.execute(
        select(policies.c.parent).where(policies.c.name == policy_name(run.run_id, 0))
    ).one_or_none()
    if first is not None:
        aliases.check_unmoved(connection, run, _published(connection, run, first.parent))
        return str(first.parent)
    return aliases.version_to_continue(connection, run.tenant, run.alias, domain)


def _published_before(connection: Connection, run: Row[Any]) -> str:
    """The version that the alias of a run must point to before the run moves it."""
    first = select(policies.c.parent).where(policies.c.name == policy_name(run.run_id, 0))
    return _published(connection, run, connection.scalars(first).one())


def _published(connection: Connection, run: Row[Any], start: str) -> str:
    """The version that a run on an alias published last; `start` if none."""
    done = and_(rounds.c.run_id == run.run_id, rounds.c.next_policy.is_not(None))
    last = connection.scalar(select(rounds.c.next_policy).where(done).order_by(rounds.c.round.desc()).limit(1))
    return start if last in (None, policy_name(run.run_id, 0)) else str(last)


def begin_round(connection: Connection, lease: RunLease, round_index: int, policy: str) -> str | None:
    """Opens a round under policy θ_t; returns the name of θ_{t+1} if its M-step is already done. Raises LeaseLost."""
    hold(connection, lease)
    key = {"run_id": lease.run_id, "round": round_index}
    insert_new(connection, rounds, {**key, "policy": policy, "next_policy": None, "kept": 0, "start_time": now()})
    return connection.scalar(select(rounds.c.next_policy).filter_by(**key))


def end_round(
    connection: Connection,
    lease: RunLease,
    round_index: int,
    made: PolicyVersion,
    following: PolicyVersion,
    *,
    kept: int,
    alias: str = "",
    fewer_trials: int = 0,
    document: DocumentOutcome | None = None,
) -> PolicyVersion:
    """Closes a round with θ_{t+1}, the `following` policy; the policy that was `made` is stored even if the gate
    refused it. θ_{t+1} is published under `alias`, if any; `fewer_trials`: planned trials that are not needed;
    `document`: what became of the round's document. Idempotent: a second call changes nothing. Raises
    LeaseLost; AliasMoved if the run learns on an alias that somebody else moved."""
    row = hold(connection, lease)
    this_round = and_(rounds.c.run_id == lease.run_id, rounds.c.round == round_index)
    before = _published_before(connection, row) if row.alias else ""
    open_round = and_(this_round, rounds.c.next_policy.is_(None))
    ended = update(rounds).where(open_round).values(next_policy=following.name, kept=kept, end_time=now())
    if not connection.execute(ended).rowcount:
        ended_with = connection.scalars(select(rounds.c.next_policy).where(this_round)).one()
        return get(connection, FULL_ACCESS, ended_with or "")
    if not _insert(connection, row, made):
        decision = {"gate": made.gate, "gate_reason": made.gate_reason}
        connection.execute(update(policies).where(policies.c.name == made.name).values(**decision))
    connection.execute(
        update(runs)
        .where(runs.c.run_id == lease.run_id)
        .values(rounds_done=round_index + 1, trials_total=row.trials_total - fewer_trials)
    )
    if document is not None:
        documents.settle(connection, lease.run_id, round_index, document)
    if alias:
        if row.alias:
            aliases.check_unmoved(connection, row, before)
        aliases.point(connection, row.tenant, alias, following.name, round_name(lease.run_id, round_index))
        set_it = {"action": "SetAlias", "resource": alias_name(alias), "detail": following.name}
        audit.enter_of_run(connection, lease.run_id, tenant=row.tenant, **set_it)
    shown = made.changed(verdicts=())
    events.append(connection, lease.run_id, PolicyTrained(round=round_index, policy=shown, kept=kept))
    events.append(connection, lease.run_id, RoundFinished(round=round_index, policy=following.name))
    return following


def add(connection: Connection, lease: RunLease, made: PolicyVersion) -> PolicyVersion:
    """Stores a policy before its round is closed, so that trials can refer to it. Idempotent. Raises LeaseLost."""
    _insert(connection, hold(connection, lease), made)
    return get(connection, FULL_ACCESS, made.name)


def _insert(connection: Connection, run: Row[Any], made: PolicyVersion) -> bool:
    """Inserts a policy of a run and counts its usage, unless it is stored already; returns whether it was new."""
    values = made.model_dump(mode="json", exclude={"create_time", "run"})
    base = connection.scalar(select(policies.c.base_model).where(policies.c.name == policy_name(run.run_id, 0)))
    row = {**values, "run_id": run.run_id, "base_model": base, "create_time": made.create_time}
    if not insert_new(connection, policies, row):
        return False
    of_run = update(runs).where(runs.c.run_id == run.run_id)
    connection.execute(of_run.values(budgets.more_spent(made.usage)))
    quotas.spend(connection, run.tenant, made.usage.device_seconds)
    return True


def measured(connection: Connection, lease: RunLease, theta: PolicyVersion) -> PolicyVersion:
    """Stores what was measured of a stored policy. Raises LeaseLost."""
    hold(connection, lease)
    found = theta.model_dump(mode="json", include=set(_MEASURED))
    connection.execute(update(policies).where(policies.c.name == theta.name).values(**found))
    return get(connection, FULL_ACCESS, theta.name)


def score(connection: Connection, lease: RunLease, name: str, held_out: float | None) -> None:
    """Stores the score of a policy's self-edits on held-out contexts. Raises LeaseLost."""
    hold(connection, lease)
    connection.execute(update(policies).where(policies.c.name == name).values(held_out_accuracy=held_out))


def _row(connection: Connection, scope: AccessScope, name: str) -> Row[Any]:
    query = select(policies).where(policies.c.name == name, scope.of_run(policies.c.run_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownPolicy(f"there is no policy {name}", metadata={"policy": name})
    return row


def _policy(row: Row[Any]) -> PolicyVersion:
    stored = {field: row._mapping[field] for field in PolicyVersion.model_fields if field in row._mapping}
    return PolicyVersion.from_stored({**stored, "run": run_name(row.run_id)})
