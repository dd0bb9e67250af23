"""What a trial was asked and trained on. The database has the run's dataset and the trial's texts; the domain makes the
queries and the training examples of them again, as `controller.trial.work` did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from controller.db import contexts, runs, trials
from controller.db.access import AccessScope
from controller.db.manifest import read_manifest
from controller.db.runs import RunPlan
from controller.db.trials import Plan
from controller.rules.seeds import inner_seed
from controller.rules.setup import Setup, make_setup, retention_query
from sealkit.domains.base import Context, Rejected, spec_of, study_of
from sealkit.errors import NotReproducible
from sealkit.names import run_id_of
from sealkit.reports import TrialMaterial
from sealkit.resources import Editor, Trial
from sealkit.types import Query, TrainingExample

_TEXT_CHARACTERS = 2**20
"""Characters of the training examples that are returned: a message has a limit."""


@dataclass(frozen=True, slots=True)
class StoredMaterial:
    """A trial, its context, and of its run what determines what it was asked and trained on."""

    trial: Trial
    plan: RunPlan
    context: Context
    earlier: Sequence[Context]
    """Contexts that the run learned before; their queries are part of the trial's retention."""


def stored_material(connection: Connection, scope: AccessScope, name: str) -> StoredMaterial:
    """Raises UnknownTrial, ConfigOutdated."""
    trial = trials.get(connection, scope, name)
    run_id = run_id_of(name)
    plan = runs.plan(connection, run_id)
    earlier = contexts.learned_before(connection, run_id, trial.round, plan.config.evaluation.earlier_contexts)
    return StoredMaterial(trial, plan, contexts.get(connection, run_id, trial.context_id), earlier)


def material_of(stored: StoredMaterial, plugins: Sequence[str]) -> TrialMaterial:
    """The material of a trial. Raises InvalidConfig or UnknownDomain if this process does not support the run's
    config."""
    setup = make_setup(stored.plan, plugins)
    examples = _examples(stored, setup)
    return TrialMaterial(
        queries=tuple(_bare(query) for query in setup.domain.queries(stored.context)),
        lost=_lost(stored, setup),
        examples=_first(examples),
        examples_total=len(examples),
    )


def _lost(stored: StoredMaterial, setup: Setup) -> tuple[Query, ...]:
    lost = stored.trial.retention.lost_query_ids if stored.trial.retention else ()
    if not lost:
        return ()
    known = {query.query_id: query for context in stored.earlier for query in setup.domain.queries(context)}
    known |= {record["id"]: retention_query(record) for record in stored.plan.retention}
    return tuple(_bare(known[query_id]) for query_id in lost if query_id in known)


def _examples(stored: StoredMaterial, setup: Setup) -> tuple[TrainingExample, ...]:
    """Of the trial's spec; none if it has no self-edit or no teacher's answers yet, or if they do not compile."""
    trial, context = stored.trial, stored.context
    seed = _inner_seed(stored)
    if trial.editor == Editor.PASSAGE_ONLY:
        return setup.domain.context_only(context, seed).examples
    if not trial.completion:
        return ()
    try:
        if study_of(setup.domain, context, trial.completion) and not trial.teacher_answers:
            return ()
        return spec_of(setup.domain, context, trial.completion, trial.teacher_answers, seed).examples
    except Rejected:
        return ()


def _inner_seed(stored: StoredMaterial) -> int:
    """The seed in the manifest; of a trial without one that this version can read, the one that its names give."""
    trial = stored.trial
    try:
        manifest = read_manifest(trial.name, trial.manifest)
    except NotReproducible:
        manifest = None
    if manifest is not None:
        return manifest.instructions.inner_seed
    return inner_seed(stored.plan.config.seed, Plan.of(trial))


def _bare(query: Query) -> Query:
    return query.changed(views=())


def _first(examples: Sequence[TrainingExample]) -> tuple[TrainingExample, ...]:
    """The first examples, up to the limit of characters; at least one."""
    taken: list[TrainingExample] = []
    characters = 0
    for example in examples:
        prompts = [prompt for prompt in (example.prompt, example.teacher_prompt) if prompt]
        characters += len(example.text) + sum(len(prompt.system) + len(prompt.user) for prompt in prompts)
        if taken and characters > _TEXT_CHARACTERS:
            break
        taken.append(example)
    return tuple(taken)
