"""Aliases: names, unique per tenant, of policies that passed the gate. Moves are only inserted, so the history is
complete.

A roll-back is a move too; it `restores` an earlier one. Rolling back again continues from the restored move, further
back; it does not alternate between the last two policies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select

from controller.db.access import AccessScope, ChangeRequest
from controller.db.pages import Page, key_of, size_of, token_after
from controller.db.requests import first_time
from controller.db.tables import aliases, now, policies, runs
from sealkit.errors import (
    AliasMoved,
    FailedPrecondition,
    GateRefused,
    NothingToRollBack,
    UnknownAlias,
    UnknownPolicy,
)
from sealkit.names import alias_name, run_id_of
from sealkit.resources import Alias, AliasChange, GateState
from sealkit.stored_config import read_stored_config
from sealkit.types import digest_of


def get(connection: Connection, scope: AccessScope, alias: str) -> Alias:
    """One alias, by the last part of its name; for a caller with full access, that of no tenant. Raises
    UnknownAlias."""
    return _alias(scope.home, alias, _moves(connection, scope.home, alias))


def page(connection: Connection, scope: AccessScope, size: int, token: str) -> Page[Alias]:
    """Aliases by name, then by tenant. Raises InvalidInput on a bad token."""
    key = aliases.c.alias, aliases.c.tenant
    query = select(*key).where(scope.aliases).distinct().order_by(*key).limit(size_of(size) + 1)
    if last := key_of(token, str, str):
        of_same_name = and_(aliases.c.alias == last[0], aliases.c.tenant > last[1])
        query = query.where(or_(aliases.c.alias > last[0], of_same_name))
    rows = connection.execute(query).all()
    shown = rows[: size_of(size)]
    found = [_alias(row.tenant, row.alias, _moves(connection, row.tenant, row.alias)) for row in shown]
    more = len(rows) > len(shown)
    return Page(found, token_after([shown[-1].alias, shown[-1].tenant]) if more else "")


def point(
    connection: Connection, tenant: str, alias: str, policy: str, reason: str, *, restores: int | None = None
) -> None:
    """Points the alias to a policy without checks; no effect if it points there already."""
    last = connection.execute(
        select(aliases.c.sequence, aliases.c.policy)
        .where(aliases.c.tenant == tenant, aliases.c.alias == alias)
        .order_by(aliases.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.policy == policy:
        return
    number = last.sequence + 1 if last is not None else 1
    key = {"tenant": tenant, "alias": alias, "sequence": number}
    row = {**key, "policy": policy, "reason": reason, "time": now(), "restores": restores}
    connection.execute(insert(aliases).values(**row))


def current(connection: Connection, tenant: str, alias: str) -> str:
    """The policy that an alias points to; empty if there is no such alias."""
    named = and_(aliases.c.tenant == tenant, aliases.c.alias == alias)
    newest = select(aliases.c.policy).where(named).order_by(aliases.c.sequence.desc()).limit(1)
    return connection.scalar(newest) or ""


def version_to_continue(connection: Connection, tenant: str, alias: str, domain: str) -> str:
    """The version that a run of this domain, which learns documents on an alias or makes it forget some, starts from:
    the one that the alias points to; empty: the base model, because there is no such alias yet. Raises
    FailedPrecondition if that version was not made of documents, or of those of another domain."""
    start = current(connection, tenant, alias)
    if not start:
        return ""
    made = connection.execute(
        select(runs.c.alias, policies.c.trials)
        .join_from(policies, runs, runs.c.run_id == policies.c.run_id)
        .where(policies.c.name == start)
    ).one()
    others = sorted(_domains(connection, {run_id_of(name) for name in made.trials}) - {domain})
    why = ""
    if not made.alias:
        why = (
            "which was not made by learning documents, so it can neither learn nor forget any; take another alias, or "
            "continue this one with `seal adapt`"
        )
    elif others:
        why = (
            f"which knows documents of the domain {', '.join(others)}, and the domain {domain} of this run cannot read "
            "them; take another alias, or a config with that domain (domain.name)"
        )
    if why:
        raise FailedPrecondition(
            f"{alias_name(alias)} points to {start}, {why}",
            metadata={"alias": alias_name(alias), "policy": start},
        )
    return start


def _domains(connection: Connection, run_ids: Collection[str]) -> set[str]:
    """The domains of these runs."""
    configs = (connection.scalars(select(runs.c.config).where(runs.c.run_id == one)).one() for one in run_ids)
    return {read_stored_config(config).config.domain.name for config in configs}


def check_unmoved(connection: Connection, run: Row[Any], expected: str) -> None:
    """Checks that the alias that a run learns on still points to the version that the run continues from; empty: to
    none. Raises AliasMoved."""
    found = current(connection, run.tenant, run.alias)
    if found != expected:
        raise AliasMoved(
            f"{alias_name(run.alias)} points to {found or 'nothing'}, but runs/{run.run_id} continues from "
            f"{expected or 'the base model'}: somebody else moved it. Learn the remaining documents again; that starts "
            "from where the alias is now",
            metadata={"alias": alias_name(run.alias), "expected": expected, "found": found},
        )


def set_to(connection: Connection, change: ChangeRequest, policy: str, reason: str) -> Alias:
    """Points an alias to a policy. Raises UnknownPolicy, RequestIdReused; GateRefused unless it passed the gate."""
    named = and_(policies.c.name == policy, change.scope.of_run(policies.c.run_id))
    row = connection.execute(select(policies.c.gate, policies.c.gate_reason).where(named)).one_or_none()
    if row is None:
        raise UnknownPolicy(f"there is no policy {policy}", metadata={"policy": policy})
    if row.gate != GateState.PASSED:
        why = "its forgetting was never measured" if row.gate == GateState.UNMEASURED else row.gate_reason
        raise GateRefused(
            f"{policy} did not pass the gate: {why}. Point the alias to one that passed (`seal policies list`)",
            metadata={"policy": policy, "gate": row.gate},
        )
    if first_time(connection, change, digest_of("set alias", change.id, policy, reason), policy):
        point(connection, change.scope.home, change.id, policy, reason)
    return get(connection, change.scope, change.id)


def roll_back(connection: Connection, change: ChangeRequest, reason: str) -> Alias:
    """Points an alias to the policy it pointed to before. Raises UnknownAlias, NothingToRollBack, RequestIdReused."""
    tenant, alias = change.scope.home, change.id
    moves = {move.sequence: move for move in _moves(connection, tenant, alias)}
    if not first_time(
        connection, change, digest_of("roll back alias", alias, reason), f"from {moves[max(moves)].policy}"
    ):
        return get(connection, change.scope, alias)
    here = _origin(moves[max(moves)])
    before = _usable_before(connection, moves, here)
    if before is None:
        raise NothingToRollBack(
            f"aliases/{alias} has no policy before {moves[here].policy} that is still there",
            metadata={"alias": alias_name(alias)},
        )
    words = reason or f"rolled back from {moves[max(moves)].policy}"
    point(connection, tenant, alias, moves[before].policy, words, restores=before)
    return get(connection, change.scope, alias)


def _usable_before(connection: Connection, moves: Mapping[int, Row[Any]], here: int) -> int | None:
    """The original move before this one whose policy is not refused: a policy that was trained on a document that was
    forgotten later is deleted. None if there is none."""
    while here > 1:
        here = _origin(moves[here - 1])
        gate = connection.scalar(select(policies.c.gate).where(policies.c.name == moves[here].policy))
        if gate != GateState.REFUSED and moves[here].policy != moves[max(moves)].policy:
            return here
    return None


def _origin(move: Row[Any]) -> int:
    """The original move of a chain of roll-backs."""
    return int(move.restores or move.sequence)


def _alias(tenant: str, alias: str, moves: Sequence[Row[Any]]) -> Alias:
    changes = tuple(AliasChange(policy=m.policy, time=m.time, reason=m.reason) for m in reversed(moves))
    return Alias(name=alias_name(alias), policy=changes[0].policy, history=changes, tenant=tenant)


def _moves(connection: Connection, tenant: str, alias: str) -> list[Row[Any]]:
    """All moves, oldest first. Raises UnknownAlias."""
    named = and_(aliases.c.tenant == tenant, aliases.c.alias == alias)
    rows = connection.execute(select(aliases).where(named).order_by(aliases.c.sequence)).all()
    if not rows:
        own = aliases.c.tenant == tenant
        known = connection.scalar(select(func.count(aliases.c.alias.distinct())).where(own)) or 0
        raise UnknownAlias(
            f"there is no alias aliases/{alias}; `seal alias list` shows the {known} that exist",
            metadata={"alias": alias_name(alias)},
        )
    return list(rows)
