"""The documents of a run, and those that a version of an alias was trained on.

A document belongs to the run that learned it. A version knows a document if it was trained on one of its trials, so
what an alias knows follows from the trials of the version that it points to, whichever runs made them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from controller.db import contexts as context_rows
from controller.db import quotas
from controller.db.leases import RunLease, hold
from controller.db.quotas import QuotaRequest
from controller.db.tables import contexts, documents, rounds, runs, trials
from sealkit.domains.base import Context
from sealkit.resources import DocumentState
from sealkit.types import Value

_CHUNK = 500


class NewDocument(Value):
    """A document as a caller sent it."""

    name: str
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.content).hexdigest()


class StoredDocument(Value):
    """A document's row, without its bytes. `round`: the one that learns it; None: it is not read, or skipped."""

    run_id: str
    position: int
    name: str
    digest: str
    text_digest: str = ""
    title: str = ""
    format: str = ""
    notices: tuple[str, ...] = ()
    passages: int = 0
    round: int | None = None
    state: DocumentState = DocumentState.WAITING
    reason: str = ""
    replaces: str = ""
    questions: int = 0
    accuracy_before: float | None = None
    accuracy_after: float | None = None


class DocumentOutcome(Value):
    """What became of a document, and why; its accuracies on its exam of so many questions."""

    state: DocumentState
    reason: str = ""
    questions: int = 0
    accuracy_before: float | None = None
    accuracy_after: float | None = None


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document that a version knows, and the trials that it was trained on."""

    document: StoredDocument
    trials: tuple[str, ...]


_COLUMNS: list[Any] = [documents.c[name] for name in StoredDocument.model_fields]


def add(connection: Connection, run_id: str, new: Sequence[NewDocument]) -> None:
    """Inserts the documents of a new run."""
    rows = [
        {
            **StoredDocument(run_id=run_id, position=i, name=one.name, digest=one.digest).model_dump(mode="json"),
            "content": one.content,
        }
        for i, one in enumerate(new)
    ]
    if rows:
        connection.execute(insert(documents), rows)


def of_run(connection: Connection, run_id: str) -> list[StoredDocument]:
    """The documents of a run, in their order."""
    query = select(*_COLUMNS).where(documents.c.run_id == run_id).order_by(documents.c.position)
    return [_document(row) for row in connection.execute(query).all()]


def unread(connection: Connection, run_id: str) -> list[tuple[StoredDocument, bytes]]:
    """The documents of a run that are not read yet, with their bytes."""
    here = and_(documents.c.run_id == run_id, documents.c.content.is_not(None))
    rows = connection.execute(select(*_COLUMNS, documents.c.content).where(here).order_by(documents.c.position))
    return [(_document(row), row.content) for row in rows]


def known(connection: Connection, trial_names: Sequence[str]) -> list[KnownDocument]:
    """The documents that a version with these trials was trained on, oldest first."""
    of_context = and_(contexts.c.run_id == trials.c.run_id, contexts.c.context_id == trials.c.context_id)
    of_document = and_(documents.c.run_id == contexts.c.run_id, documents.c.position == contexts.c.document)
    found: dict[tuple[str, int], KnownDocument] = {}
    order = {name: i for i, name in enumerate(trial_names)}
    rows: list[Row[Any]] = []
    for start in range(0, len(trial_names), _CHUNK):
        query = (
            select(trials.c.name.label("trial"), *_COLUMNS)
            .join_from(trials, contexts, of_context)
            .join(documents, of_document)
            .where(trials.c.name.in_(trial_names[start : start + _CHUNK]))
        )
        rows += connection.execute(query).all()
    for row in sorted(rows, key=lambda row: order[row.trial]):
        key = row.run_id, row.position
        before = found[key].trials if key in found else ()
        found[key] = KnownDocument(_document(row), (*before, row.trial))
    return list(found.values())


def keep_read(
    connection: Connection,
    lease: RunLease,
    read: Sequence[StoredDocument],
    passages: Sequence[Context],
    *,
    rounds_total: int,
) -> None:
    """Stores what was read: the documents' rows, whose bytes are deleted, and their passages as contexts of the run.
    Raises LeaseLost."""
    hold(connection, lease)
    for one in read:
        values = {**one.model_dump(mode="json", exclude={"run_id", "position", "name", "digest"}), "content": None}
        connection.execute(update(documents).where(_at(one)).values(**values))
    context_rows.add(connection, lease.run_id, passages)
    connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(rounds_total=rounds_total))


def plan_trials(connection: Connection, lease: RunLease, total: int) -> None:
    """Sets the number of trials, which is known once the exams are made. Raises LeaseLost, QuotaExceeded."""
    row = hold(connection, lease)
    quotas.check(connection, row.tenant, QuotaRequest(total, row.priority, opens=False))
    connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(trials_total=total))


def settle(connection: Connection, run_id: str, round_index: int, outcome: DocumentOutcome) -> None:
    """Sets what became of the document of a round."""
    here = and_(documents.c.run_id == run_id, documents.c.round == round_index)
    connection.execute(update(documents).where(here).values(**outcome.model_dump(mode="json")))


def seconds(connection: Connection, run_id: str) -> Mapping[int, float]:
    """By index, how long each finished round took."""
    ended = and_(rounds.c.run_id == run_id, rounds.c.end_time.is_not(None), rounds.c.start_time.is_not(None))
    rows = connection.execute(select(rounds.c.round, rounds.c.start_time, rounds.c.end_time).where(ended))
    return {row.round: max(0.0, (row.end_time - row.start_time).total_seconds()) for row in rows}


def learned_passages(connection: Connection, run_id: str) -> Mapping[int, int]:
    """By round, how many of its contexts have a trial that was kept."""
    kept = and_(trials.c.run_id == run_id, trials.c.selected)
    query = select(trials.c.round, func.count(trials.c.context_id.distinct())).where(kept).group_by(trials.c.round)
    return {row[0]: row[1] for row in connection.execute(query)}


def _at(one: StoredDocument) -> Any:
    return and_(documents.c.run_id == one.run_id, documents.c.position == one.position)


def _document(row: Any) -> StoredDocument:
    return StoredDocument.from_stored({name: row._mapping[name] for name in StoredDocument.model_fields})
