"""Aliases: names that point to policies which passed the gate. Moves are only ever added, so the history is whole.

A roll-back is a move too; it `restores` an earlier one. Rolling back again goes on from that one, further back: two
roll-backs never swing to and fro between the last two policies.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from controller.record.pages import Page, key_of, size_of, token_after
from controller.record.requests import first_time
from controller.record.tables import aliases, now, policies
from sealkit.errors import GateRefused, NothingToRollBack, UnknownAlias, UnknownPolicy
from sealkit.resources import Alias, AliasChange, GateState
from sealkit.types import digest_of


def get(connection: Connection, alias: str) -> Alias:
    """One alias, by the last part of its name. Raises UnknownAlias."""
    moves = _moves(connection, alias)
    changes = tuple(AliasChange(policy=m.policy, time=m.time, reason=m.reason) for m in reversed(moves))
    return Alias(name=f"aliases/{alias}", policy=changes[0].policy, history=changes)


def page(connection: Connection, size: int, token: str) -> Page[Alias]:
    """Aliases by name. Raises InvalidInput on a bad token."""
    query = select(aliases.c.alias).distinct().order_by(aliases.c.alias).limit(size_of(size) + 1)
    if key := key_of(token, str):
        query = query.where(aliases.c.alias > key[0])
    names = list(connection.scalars(query))
    shown = names[: size_of(size)]
    return Page([get(connection, name) for name in shown], token_after([shown[-1]]) if len(names) > len(shown) else "")


def point(connection: Connection, alias: str, policy: str, reason: str, *, restores: int | None = None) -> None:
    """Makes the alias point to a policy, whatever it is; nothing where it points there already."""
    last = connection.execute(
        select(aliases.c.sequence, aliases.c.policy)
        .where(aliases.c.alias == alias)
        .order_by(aliases.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.policy == policy:
        return
    number = last.sequence + 1 if last is not None else 1
    row = {"alias": alias, "sequence": number, "policy": policy, "reason": reason, "time": now(), "restores": restores}
    connection.execute(insert(aliases).values(**row))


def set_to(connection: Connection, alias: str, policy: str, reason: str, request_id: str) -> Alias:
    """Points an alias to a policy. Raises UnknownPolicy, RequestIdReused; GateRefused unless it passed the gate."""
    row = connection.execute(
        select(policies.c.gate, policies.c.gate_reason).where(policies.c.name == policy)
    ).one_or_none()
    if row is None:
        raise UnknownPolicy(f"there is no policy {policy}", metadata={"policy": policy})
    if row.gate != GateState.PASSED:
        why = row.gate_reason if row.gate == GateState.REFUSED else "what it forgot was never measured"
        raise GateRefused(
            f"{policy} did not pass the gate: {why}. Point the alias to one that passed (`seal policies list`)",
            metadata={"policy": policy, "gate": row.gate},
        )
    if first_time(connection, request_id, digest_of("set alias", alias, policy, reason), alias):
        point(connection, alias, policy, reason)
    return get(connection, alias)


def roll_back(connection: Connection, alias: str, reason: str, request_id: str) -> Alias:
    """Points an alias to the policy it pointed to before. Raises UnknownAlias, NothingToRollBack, RequestIdReused."""
    moves = {move.sequence: move for move in _moves(connection, alias)}
    if not first_time(connection, request_id, digest_of("roll back alias", alias, reason), alias):
        return get(connection, alias)
    here = _origin(moves[max(moves)])
    if here == 1:
        raise NothingToRollBack(
            f"aliases/{alias} has pointed to nothing before {moves[1].policy}", metadata={"alias": f"aliases/{alias}"}
        )
    before = _origin(moves[here - 1])
    words = reason or f"rolled back from {moves[max(moves)].policy}"
    point(connection, alias, moves[before].policy, words, restores=before)
    return get(connection, alias)


def _origin(move: Row[Any]) -> int:
    """The move that made the alias point where this one does, for the first time."""
    return int(move.restores or move.sequence)


def _moves(connection: Connection, alias: str) -> list[Row[Any]]:
    """All moves, oldest first. Raises UnknownAlias."""
    rows = connection.execute(select(aliases).where(aliases.c.alias == alias).order_by(aliases.c.sequence)).all()
    if not rows:
        known = connection.scalar(select(func.count(aliases.c.alias.distinct()))) or 0
        raise UnknownAlias(
            f"there is no alias aliases/{alias}; `seal alias list` shows the {known} there are",
            metadata={"alias": f"aliases/{alias}"},
        )
    return list(rows)
