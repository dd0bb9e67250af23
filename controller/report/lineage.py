"""Where a version comes from: its documents, the trials that it was trained on, and who wrote their self-edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from controller.db import aliases, contexts, documents, policies, runs, tables, trials
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.documents import KnownDocument
from controller.rules.setup import domain_of
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.names import id_of, is_alias, run_name
from sealkit.reports import Lineage, LineageDocument, LineageQuery, LineageTrial
from sealkit.resources import Editor, PolicyVersion, Trial
from sealkit.types import digest_of


@dataclass(frozen=True, slots=True)
class Origin:
    """What the database has of a version's origin. `configs`: of the runs that learned the documents, by run id;
    `writers`: the policies of the trials, by name; `contexts`: by trial name."""

    alias: str
    version: PolicyVersion
    base_model: str
    configs: dict[str, RunConfig]
    known: Sequence[KnownDocument]
    trials: dict[str, Trial]
    contexts: dict[str, Context]
    writers: dict[str, PolicyVersion]


def origin(connection: Connection, scope: AccessScope, name: str) -> Origin:
    """The origin of `policies/{id}`, or of the version that `aliases/{id}` points to. Raises UnknownAlias,
    UnknownPolicy."""
    alias = aliases.get(connection, scope, id_of(name)) if is_alias(name) else None
    version = policies.get(connection, scope, alias.policy if alias else name)
    kept = trials.existing(connection, version.trials)
    known = documents.known(connection, version.trials)
    base = select(tables.policies.c.base_model).where(tables.policies.c.name == version.name)
    return Origin(
        alias=alias.name if alias else "",
        version=version,
        base_model=connection.scalars(base).one(),
        configs={
            run_id: runs.stored_config(connection, run_id).config for run_id in {one.document.run_id for one in known}
        },
        known=known,
        trials={trial.name: trial for trial in kept},
        contexts=contexts.of_trials(connection, kept),
        writers={one: policies.get(connection, FULL_ACCESS, one) for one in {trial.policy for trial in kept}},
    )


def lineage(found: Origin, plugins: Sequence[str]) -> Lineage:
    """The lineage of a version. Raises UnknownDomain, InvalidConfig."""
    domains = {run_id: domain_of(config, plugins) for run_id, config in found.configs.items()}

    def queries(one: KnownDocument) -> tuple[LineageQuery, ...]:
        about = {found.contexts[name].context_id: found.contexts[name] for name in one.trials}
        return tuple(
            LineageQuery(query_id=query.query_id, question=query.question, gold=query.gold, generated=context.generated)
            for context in about.values()
            for query in domains[one.document.run_id].queries(context)
        )

    return Lineage(
        alias=found.alias,
        version=found.version,
        base_model=found.base_model,
        documents=tuple(
            LineageDocument(
                name=one.document.name,
                digest=one.document.digest,
                run=run_name(one.document.run_id),
                trials=tuple(_trial(found.trials[name], found.writers) for name in one.trials),
                queries=queries(one),
                accuracy_before=one.document.accuracy_before,
                accuracy_after=one.document.accuracy_after,
            )
            for one in found.known
        ),
    )


def _trial(trial: Trial, writers: dict[str, PolicyVersion]) -> LineageTrial:
    writer = writers[trial.policy]
    own = trial.editor == Editor.POLICY and writer.adapter is not None
    return LineageTrial(
        name=trial.name,
        editor=trial.editor,
        policy=trial.policy,
        policy_adapter=writer.adapter if own else None,
        self_edit=digest_of(trial.completion),
        teacher_answers=digest_of(*trial.teacher_answers),
        adapter=trial.adapter,
    )
