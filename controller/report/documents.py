"""What became of each document of a run, and what was lost by learning it, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sqlalchemy import Connection

from controller.db import contexts, documents, policies, runs
from controller.db.access import FULL_ACCESS
from controller.db.documents import StoredDocument
from controller.report.continual import with_continual
from controller.rules.setup import domain_of
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.reports import DocumentReport, LostQuestion, RunReport
from sealkit.resources import DocumentState, PolicyVersion
from sealkit.types import Outcome, Query

_COPIED = DocumentReport.model_fields.keys() & StoredDocument.model_fields.keys()


@dataclass(frozen=True, slots=True)
class Learning:
    """What the database has of the documents of a run.

    Attributes:
        versions: The run's versions with their verdicts, by name.
        rounds: By index, the names of a round's θ_t and θ_{t+1}; the second is empty until it has ended.
        seconds: How long each round took, by index.
        learned: Contexts of each round of which a trial was kept.
        contexts: Those of the run, and those that it started with, with the name of their document.
        retention: The retention suite.
    """

    documents: Sequence[StoredDocument]
    versions: Mapping[str, PolicyVersion]
    rounds: Mapping[int, tuple[str, str]]
    seconds: Mapping[int, float]
    learned: Mapping[int, int]
    contexts: Sequence[tuple[Context, str]]
    retention: Sequence[Mapping[str, Any]]


def learning(connection: Connection, run_id: str) -> Learning | None:
    """What the database has of the documents of a run; None if it learns none."""
    found = documents.of_run(connection, run_id)
    if not found:
        return None
    versions = {
        one.name: policies.get(connection, FULL_ACCESS, one.name) for one in policies.of_run(connection, run_id)
    }
    own = [(one, document) for document in found for one in contexts.of_document(connection, run_id, document.position)]
    started_with = [
        (context, one.document)
        for version in versions.values()
        if version.round is None
        for one in documents.known(connection, version.trials)
        for context in contexts.of_document(connection, one.document.run_id, one.document.position)
    ]
    return Learning(
        documents=found,
        versions=versions,
        rounds=policies.rounds_of(connection, run_id),
        seconds=documents.seconds(connection, run_id),
        learned=documents.learned_passages(connection, run_id),
        contexts=[(context, document.name) for context, document in (*started_with, *own)],
        retention=runs.retention(connection, run_id),
    )


def document_reports(found: Learning, config: RunConfig, plugins: Sequence[str]) -> tuple[DocumentReport, ...]:
    """One report for each document, in their order. Raises UnknownDomain, InvalidConfig."""
    domain = domain_of(config, plugins)
    asked = {query.query_id: (query, name) for context, name in found.contexts for query in domain.queries(context)}
    return tuple(_report(one, found, asked) for one in found.documents)


def with_continual_of_documents(report: RunReport, found: Learning, after_rounds: Sequence[str]) -> RunReport:
    """The report with R and its measures over documents instead of contexts: the accuracy on a document is the mean of
    those on its passages."""
    names = [one.name for one in sorted(found.documents, key=lambda one: one.round or 0) if one.round is not None]
    by_name: dict[str, list[str]] = {name: [] for name in names}
    for context, name in found.contexts:
        if name in by_name:
            by_name[name].append(context.context_id)

    def scores(version: PolicyVersion) -> dict[str, float]:
        of = {name: [version.scores[c] for c in about if c in version.scores] for name, about in by_name.items()}
        return {name: fmean(several) for name, several in of.items() if several}

    averaged = tuple(version.changed(scores=scores(version)) for version in report.policies)
    measured = with_continual(report.changed(policies=averaged), names, after_rounds, what="documents")
    return measured.changed(policies=report.policies)


def _report(one: StoredDocument, found: Learning, asked: Mapping[str, tuple[Query, str]]) -> DocumentReport:
    before, after = found.rounds.get(one.round, ("", "")) if one.round is not None else ("", "")
    lost: tuple[LostQuestion, ...] = ()
    if one.state is DocumentState.LEARNED and before in found.versions and after in found.versions:
        lost = _lost(found.versions[before], found.versions[after], found, asked)
    return DocumentReport(
        **{name: getattr(one, name) for name in _COPIED},
        learned=found.learned.get(one.round, 0) if one.state is DocumentState.LEARNED and one.round is not None else 0,
        seconds=found.seconds.get(one.round) if one.round is not None else None,
        policy=after,
        lost=lost,
    )


def _lost(
    before: PolicyVersion, after: PolicyVersion, found: Learning, asked: Mapping[str, tuple[Query, str]]
) -> tuple[LostQuestion, ...]:
    now = {verdict.query_id: verdict for verdict in after.verdicts}
    of_documents = [
        LostQuestion(
            query_id=was.query_id,
            document=asked[was.query_id][1],
            question=asked[was.query_id][0].question,
            gold=asked[was.query_id][0].gold,
            before=was.answer,
            after=now[was.query_id].answer,
        )
        for was in before.verdicts
        if was.outcome is Outcome.CORRECT
        and was.query_id in asked
        and was.query_id in now
        and now[was.query_id].outcome is Outcome.INCORRECT
    ]
    suite = {str(record["id"]): record for record in found.retention}
    old = set(before.retention.lost_query_ids) if before.retention else set()
    new = after.retention.lost_query_ids if after.retention else ()
    of_suite = [
        LostQuestion(query_id=name, question=suite[name]["question"], gold=suite[name]["answer"])
        for name in new
        if name not in old and name in suite
    ]
    return (*of_documents, *of_suite)
