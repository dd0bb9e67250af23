"""A trial's manifest: all that makes it again, what came out, and the versions that made it. Written with its result.

`TrialWork` makes a trial from `Instructions` alone and its run's own fixed parts (context, retention suite), whose
digests the manifest holds; a rerun takes the instructions out of the manifest instead of the config, so what is
written down is what is enough. No text stands in it: the completion is in the trial's row, the manifest has its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

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
    Sampling,
    TrainingResult,
    TrainingSpec,
    Value,
    Verdict,
    digest_of,
    seed_of,
)


class Instructions(Value):
    """What makes a trial. `sampling` is the generator's, without a schema (`constrained` says to take the domain's);
    None where nothing is sampled. `row_seed` is what the generator makes of its seed for this very completion.
    `teaching`: how a teacher answers, where the self-edit asks something."""

    policy: Policy
    editor: str
    context_id: str
    index: int
    domain: str
    options: dict[str, Any]
    sampling: Sampling | None
    row_seed: int | None
    constrained: bool
    inner_seed: int
    target_characters: int | None
    answering: Sampling
    judge: str
    retention_limit: int
    divergence: bool
    early_stopping: EarlyStopping | None
    start_from: Policy | None = None
    """What the adapter is trained and evaluated on; None: the policy."""
    teaching: Sampling = Sampling(temperature=0.0)

    @property
    def below(self) -> Policy:
        """What the adapter is trained and evaluated on: also the teacher."""
        return self.start_from or self.policy


class Found(Value):
    """What came out, as digests (SHA-256); empty where there was no such thing."""

    completion: str = ""
    answers: str = ""
    spec: str = ""
    adapter: str = ""
    weights_sha256: str = ""
    verdicts: str = ""
    baseline: str = ""
    steps: int = 0
    final_loss: float | None = None


class Manifest(Value):
    """`material`: digests of the fixed parts; `versions`: of services, domain and judge, as they were."""

    instructions: Instructions
    material: dict[str, str]
    found: Found
    versions: dict[str, str]


def instructions(setup: Setup, plan: Plan, policy: Policy) -> Instructions:
    """Those of a trial that is made for the first time."""
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
        teaching=config.inner_loop.teaching.model_copy(update={"seed": seed}),
    )


def material(setup: Setup, context: Context) -> dict[str, str]:
    """Digests of what the instructions are applied to."""
    return {
        "context": digest_of(context),
        "inner_loop": digest_of(setup.config.inner_loop),
        "rehearsal": digest_of(setup.config.rehearsal),
        "anchors": digest_of(*setup.anchors) if setup.anchors else "",
        "retention": setup.retention_digest,
        "earlier": digest_of(*setup.earlier) if setup.earlier else "",
    }


def found(
    completion: str | None,
    answers: Sequence[str] | None,
    spec: TrainingSpec | None,
    trained: TrainingResult | None,
    evaluation: Evaluation | None,
) -> Found:
    """Digests of what has come out; None: it never came to that."""
    return Found(
        completion=hashlib.sha256(completion.encode()).hexdigest() if completion is not None else "",
        answers=digest_of(*answers) if answers else "",
        spec=digest_of(spec) if spec else "",
        adapter=_digest(trained.adapter) if trained else "",
        weights_sha256=trained.weights_sha256 if trained else "",
        verdicts=_verdicts_digest(evaluation.verdicts) if evaluation else "",
        baseline=_verdicts_digest(evaluation.baseline_verdicts) if evaluation else "",
        steps=trained.steps if trained else 0,
        final_loss=trained.final_loss if trained else None,
    )


def _early_stopping(config: RunConfig, plan: Plan) -> EarlyStopping | None:
    """Only what selection chooses among may be left half asked: a policy's score is to be the whole truth."""
    evaluation = config.evaluation
    if plan.phase is not TrialPhase.E_STEP or not evaluation.early_stopping_confidence:
        return None
    return EarlyStopping(confidence=evaluation.early_stopping_confidence, interval=evaluation.early_stopping_interval)


def _digest(adapter: AdapterRef | None) -> str:
    return adapter.digest if adapter else ""


def _verdicts_digest(verdicts: tuple[Verdict, ...]) -> str:
    return digest_of(*[(v.query_id, v.answer, v.outcome) for v in verdicts])
