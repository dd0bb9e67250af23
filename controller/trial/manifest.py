"""Builds the parts of a trial's manifest (`controller.db.manifest`) from its run's setup and its results.

`TrialWork` needs only the `Instructions` and the run's fixed parts (context, retention suite), whose digests are in the
manifest. A rerun takes the instructions from the manifest instead of the config, so the manifest is sufficient.
"""

from __future__ import annotations

import hashlib

from controller.db.attempts import Sampled
from controller.db.manifest import Found, Instructions
from controller.db.trials import Plan
from controller.rules.seeds import group_sampling, inner_seed
from controller.rules.setup import Setup
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.resources import Editor, TrialPhase
from sealkit.types import (
    AdapterRef,
    EarlyStopping,
    Evaluation,
    Policy,
    TrainingResult,
    TrainingSpec,
    Verdict,
    digest_of,
    seed_of,
)


def instructions(setup: Setup, plan: Plan, policy: Policy) -> Instructions:
    """The instructions of a trial's first execution."""
    config = setup.config
    written = plan.editor != Editor.PASSAGE_ONLY
    sampling = group_sampling(config, plan) if written else None
    seed, below = inner_seed(config.seed, plan), setup.started_from(policy)
    return Instructions(
        policy=policy,
        editor=plan.editor,
        context_id=plan.context_id,
        index=plan.index,
        domain=config.domain.name,
        options=config.domain.options,
        sampling=sampling,
        row_seed=seed_of(sampling.seed, plan.context_id, plan.index) if sampling else None,
        constrained=config.editor.constrained,
        inner_seed=seed,
        target_characters=plan.target_characters,
        answering=config.evaluation.sampling,
        judge=setup.judge,
        retention_limit=config.evaluation.retention_limit,
        divergence=config.evaluation.divergence,
        early_stopping=_early_stopping(config, plan) if written else None,
        start_from=None if below == policy else below,
        teaching=config.inner_loop.teaching.changed(seed=seed),
        editor_template=config.editor.chat_template_kwargs,
        question_template=config.evaluation.chat_template_kwargs,
    )


def material(setup: Setup, context: Context) -> dict[str, str]:
    """Digests of the run's fixed parts that the instructions are applied to."""
    return {
        "context": digest_of(context),
        "inner_loop": digest_of(setup.config.inner_loop),
        "rehearsal": digest_of(setup.config.rehearsal),
        "anchors": digest_of(*setup.anchors) if setup.anchors else "",
        "retention": setup.retention_digest,
        "earlier": digest_of(*setup.earlier) if setup.earlier else "",
    }


def found(
    sampled: Sampled | None,
    spec: TrainingSpec | None,
    trained: TrainingResult | None,
    evaluation: Evaluation | None,
) -> Found:
    """Digests of the results; None: the trial did not get that far."""
    return Found(
        completion=hashlib.sha256(sampled.completion.encode()).hexdigest() if sampled else "",
        teacher_answers=digest_of(*sampled.teacher_answers) if sampled and sampled.teacher_answers else "",
        spec=digest_of(spec) if spec else "",
        adapter=_digest(trained.adapter) if trained else "",
        weights_sha256=trained.weights_sha256 if trained else "",
        verdicts=_verdicts_digest(evaluation.verdicts) if evaluation else "",
        baseline=_verdicts_digest(evaluation.baseline_verdicts) if evaluation else "",
        steps=trained.steps if trained else 0,
        final_loss=trained.final_loss if trained else None,
    )


def _early_stopping(config: RunConfig, plan: Plan) -> EarlyStopping | None:
    """Early stopping only for trials that selection chooses from: the score of a policy needs every query."""
    evaluation = config.evaluation
    if plan.phase is not TrialPhase.E_STEP or not evaluation.early_stopping_confidence:
        return None
    return EarlyStopping(confidence=evaluation.early_stopping_confidence, interval=evaluation.early_stopping_interval)


def _digest(adapter: AdapterRef | None) -> str:
    return adapter.digest if adapter else ""


def _verdicts_digest(verdicts: tuple[Verdict, ...]) -> str:
    return digest_of(*[(v.query_id, v.answer, v.outcome) for v in verdicts])
