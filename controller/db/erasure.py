"""Deletes everything that was stored of forgotten documents: texts, exams, self-edits, teachers' answers, verdicts.

What remains says that they were there, but nothing of what they said: their names and digests, the names of trials and
versions, and numbers. Versions that were trained on them cannot be published any more, because their adapters are
deleted too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from controller.db.aliases import current
from controller.db.documents import StoredDocument, known, of_run
from controller.db.leases import RunLease, hold
from controller.db.tables import aliases, contexts, documents, events, policies, runs, trials
from sealkit.names import run_name
from sealkit.resources import DocumentState, GateState, PolicyVersion
from sealkit.types import accuracy

_TEXTS: dict[str, Any] = {
    "completion": "",
    "teacher_answers": [],
    "reasoning": "",
    "teacher_reasoning": [],
    "verdicts": [],
}
"""Fields of a trial, in an event, that contain text."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is to be deleted. `contexts`: (run id, context id); `adapters`: digests that nothing else refers to."""

    documents: tuple[StoredDocument, ...]
    contexts: frozenset[tuple[str, str]]
    trials: frozenset[str]
    versions: frozenset[str]
    adapters: tuple[str, ...]


def found(connection: Connection, run_id: str, names: Collection[str]) -> Forgotten | None:
    """What runs of the same alias have stored of the documents of these names or digests, also of older versions of
    them and of attempts that were not adopted. None if there is nothing."""
    run = connection.execute(select(runs.c.tenant, runs.c.alias).where(runs.c.run_id == run_id)).one()
    of_alias = documents.c.run_id.in_(
        select(runs.c.run_id).where(runs.c.tenant == run.tenant, runs.c.alias == run.alias, runs.c.run_id != run_id)
    )
    digests = select(documents.c.name).where(of_alias, documents.c.digest.in_(names))
    named = or_(documents.c.name.in_(names), documents.c.name.in_(digests))
    left = documents.c.state != DocumentState.FORGOTTEN
    columns: list[Any] = [documents.c[name] for name in StoredDocument.model_fields]
    rows = connection.execute(select(*columns).where(of_alias, named, left)).all()
    if not rows:
        return None
    about = tuple(StoredDocument.from_stored(dict(row._mapping)) for row in rows)
    passages = frozenset(pair for one in about for pair in _contexts_of(connection, one))
    tried = {name for run_, context in passages for name in _trials_of(connection, run_, context)}
    versions = {
        row.name: row.adapter
        for row in connection.execute(select(policies.c.name, policies.c.adapter, policies.c.trials))
        if tried.intersection(row.trials)
    }
    adapters = {one["digest"] for one in versions.values() if one} | _adapters_of(connection, tried)
    return Forgotten(
        documents=about,
        contexts=passages,
        trials=frozenset(tried),
        versions=frozenset(versions),
        adapters=tuple(sorted(adapters - _used_elsewhere(connection, tried, versions))),
    )


def other_aliases(connection: Connection, run_id: str, gone: Forgotten) -> list[str]:
    """Aliases other than the run's that point to a version that is to be deleted."""
    own = connection.execute(select(runs.c.tenant, runs.c.alias).where(runs.c.run_id == run_id)).one()
    named = select(aliases.c.tenant, aliases.c.alias).distinct()
    pairs = [tuple(pair) for pair in connection.execute(named) if tuple(pair) != tuple(own)]
    return [alias for tenant, alias in pairs if current(connection, tenant, alias) in gone.versions]


def erase(connection: Connection, lease: RunLease, gone: Forgotten, start: PolicyVersion, theta: PolicyVersion) -> None:
    """Deletes it, and enters in the run what was forgotten, with the accuracies on its exam of the version that knew it
    and of `theta`, which does not. Raises LeaseLost."""
    hold(connection, lease)
    queries = {one: _prefixes(connection, [one]) for one in gone.documents}
    was_known = [one.document for one in known(connection, start.trials)]
    measured = [(one, _accuracies(prefixes, start, theta)) for one, prefixes in queries.items() if one in was_known]
    for one in gone.documents:
        cleared: dict[str, Any] = {"title": "", "notices": [], "content": None, "text_digest": ""}
        cleared["state"] = DocumentState.FORGOTTEN
        at = and_(documents.c.run_id == one.run_id, documents.c.position == one.position)
        connection.execute(
            update(documents).where(at).values(**cleared, reason=f"forgotten by {run_name(lease.run_id)}")
        )
    _clear_events(connection, gone.trials)
    for version in gone.versions:
        refused = {"gate": GateState.REFUSED, "gate_reason": "it was trained on a document that was forgotten"}
        connection.execute(update(policies).where(policies.c.name == version).values(**refused))
    _clear_verdicts(connection, {prefix for prefixes in queries.values() for prefix in prefixes})
    for name in gone.trials:
        connection.execute(delete(trials).where(trials.c.name == name))
    for run_id, context_id in gone.contexts:
        here = and_(contexts.c.run_id == run_id, contexts.c.context_id == context_id)
        connection.execute(delete(contexts).where(here))
    _enter(connection, lease.run_id, measured)


def _enter(
    connection: Connection,
    run_id: str,
    measured: Sequence[tuple[StoredDocument, tuple[int, float | None, float | None]]],
) -> None:
    """Adds the documents that the version knew to those of the run."""
    position = len(of_run(connection, run_id))
    for one, (questions, before, after) in measured:
        row = StoredDocument(
            run_id=run_id, position=position, name=one.name, digest=one.digest, state=DocumentState.FORGOTTEN,
            reason=_reason(one, after), questions=questions, accuracy_before=before, accuracy_after=after,
        )  # fmt: skip
        connection.execute(insert(documents).values(**row.model_dump(mode="json"), content=None))
        position += 1


def _reason(one: StoredDocument, after: float | None) -> str:
    """Whether its exam is answered as it was before it was learned."""
    if after is None or one.accuracy_before is None:
        return "its texts and adapters are deleted; its exam was not asked again"
    how = "better" if after > one.accuracy_before else "no better"
    return (
        f"its texts and adapters are deleted; its exam is answered {how} than before it was learned ({after:.2f} now, "
        f"{one.accuracy_before:.2f} then)"
    )


def _contexts_of(connection: Connection, one: StoredDocument) -> list[tuple[str, str]]:
    here = and_(contexts.c.run_id == one.run_id, contexts.c.document == one.position)
    return [(one.run_id, name) for name in connection.scalars(select(contexts.c.context_id).where(here))]


def _trials_of(connection: Connection, run_id: str, context_id: str) -> list[str]:
    here = and_(trials.c.run_id == run_id, trials.c.context_id == context_id)
    return list(connection.scalars(select(trials.c.name).where(here)))


def _adapters_of(connection: Connection, names: Collection[str]) -> set[str]:
    made = (connection.scalar(select(trials.c.adapter).where(trials.c.name == name)) for name in names)
    return {adapter["digest"] for adapter in made if adapter}


def _used_elsewhere(connection: Connection, tried: Collection[str], versions: Collection[str]) -> set[str]:
    """Digests that other trials and versions refer to."""
    rows = [
        *connection.execute(select(policies.c.name, policies.c.adapter).where(policies.c.adapter.is_not(None))),
        *connection.execute(select(trials.c.name, trials.c.adapter).where(trials.c.adapter.is_not(None))),
    ]
    return {row.adapter["digest"] for row in rows if row.name not in tried and row.name not in versions}


def _prefixes(connection: Connection, about: Sequence[StoredDocument]) -> tuple[str, ...]:
    """What the ids of the queries of these documents begin with."""
    return tuple(f"{context_id}/" for one in about for _, context_id in _contexts_of(connection, one))


def _accuracies(
    prefixes: tuple[str, ...], start: PolicyVersion, theta: PolicyVersion
) -> tuple[int, float | None, float | None]:
    """Number of questions, and the two versions' accuracies on them."""
    sides = [tuple(v for v in version.verdicts if v.query_id.startswith(prefixes)) for version in (start, theta)]
    return len(sides[0]), accuracy(sides[0]), accuracy(sides[1])


def _clear_events(connection: Connection, names: Collection[str]) -> None:
    for name in names:
        here = select(events.c.run_id, events.c.sequence, events.c.body).where(events.c.trial == name)
        for row in connection.execute(here).all():
            body = {**row.body, "trial": {**row.body["trial"], **_TEXTS}}
            at = and_(events.c.run_id == row.run_id, events.c.sequence == row.sequence)
            connection.execute(update(events).where(at).values(body=body))


def _clear_verdicts(connection: Connection, prefixes: Collection[str]) -> None:
    """Deletes every version's verdicts on queries whose ids begin like this."""
    begins = tuple(prefixes)
    for row in connection.execute(select(policies.c.name, policies.c.verdicts)).all():
        kept = [one for one in row.verdicts if not one["query_id"].startswith(begins)]
        if len(kept) < len(row.verdicts):
            connection.execute(update(policies).where(policies.c.name == row.name).values(verdicts=kept))
