"""A trial: one self-edit → adapter → evaluation → reward.

Every step can be done again: the completion is kept as soon as it is sampled, seeds derive from names, and the trainer
returns the adapter of a spec that it has trained before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from controller.patience import patiently
from controller.record.trials import Plan, Result, Taken
from controller.reward import reward
from controller.services import Services
from controller.setup import Setup
from sealkit.config import RunConfig
from sealkit.domain import Rejected
from sealkit.errors import SealError, Unavailable
from sealkit.resources import Editor, Fault, TrialPhase, TrialState
from sealkit.rpc.status import fault_of
from sealkit.types import (
    Evaluation,
    Outcome,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    Usage,
    accuracy,
    seed_of,
)

T = TypeVar("T")

KeepCompletion = Callable[[str, dict[str, float], Usage], Awaitable[None]]


class TrialWork:
    """A trial under way. Made anew for each attempt; what earlier ones took is counted on."""

    def __init__(self, taken: Taken, services: Services, keep: KeepCompletion) -> None:
        """`keep` stores a completion with what it took."""
        self._plan = taken.plan
        self._context = taken.context
        self._policy = taken.policy
        self._completion = taken.completion
        self._services = services
        self._keep = keep
        self._seconds = dict(taken.stage_seconds)
        self._usage = taken.usage
        self._characters: int | None = None

    async def bring_to_end(self, setup: Setup) -> Result:
        """generate → compile → train → evaluate → reward. Raises what a service raises that waiting does not mend."""
        try:
            spec = await self._compile(setup)
        except Rejected as rejected:
            # It trains nothing, so it is worth what the policy knows by itself.
            before = await self._stage("evaluate", lambda: self._without_adapter(setup))
            return self._result(TrialState.REJECTED, rejection=str(rejected), baseline_accuracy=before)
        trained = await self._stage("train", lambda: self._train(spec))
        evaluation = await self._stage("evaluate", lambda: self._evaluate(setup, trained))
        return self._scored(setup.config, trained, evaluation)

    def failed(self, error: SealError) -> Result:
        """The end of a trial that an error ended."""
        return self._result(TrialState.FAILED, error=fault_of(error))

    async def _compile(self, setup: Setup) -> TrainingSpec:
        domain, plan = setup.domain, self._plan
        seed = inner_seed(setup.config.seed, plan)
        if plan.editor == Editor.PASSAGE_ONLY:
            spec = await asyncio.to_thread(domain.context_only, self._context, seed)
            spec = with_budget(spec, plan.target_characters)
        else:
            completion = await self._self_edit(setup)
            spec = await asyncio.to_thread(domain.compile, self._context, completion, seed)
        self._characters = trained_characters(spec)
        return spec

    async def _self_edit(self, setup: Setup) -> str:
        if self._completion is None:
            text = await self._stage("generate", lambda: self._generate(setup))
            self._completion = text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # no database stores NUL in text
            await self._keep(self._completion, self._seconds, self._usage)
        return self._completion

    async def _generate(self, setup: Setup) -> tuple[str, Usage]:
        plan, sampling = self._plan, group_sampling(setup.config, self._plan)
        prompts = [(plan.context_id, setup.domain.prompt(self._context), [plan.index])]
        async for completion in self._services.generator.sample(self._policy, prompts, sampling):
            return completion.text, completion.usage
        raise Unavailable("the generator ended the stream without the completion")

    async def _train(self, spec: TrainingSpec) -> tuple[TrainingResult, Usage]:
        owner = f"runs/{self._plan.run_id}"
        async for update in self._services.trainer.train_adapter(self._policy, spec, owner=owner):
            if isinstance(update, TrainingResult):
                return update, update.usage
        raise Unavailable("the trainer ended the stream without a result")

    async def _evaluate(self, setup: Setup, trained: TrainingResult) -> tuple[Evaluation, Usage]:
        config = setup.config.evaluation
        evaluation = await self._services.evaluator.evaluate(
            self._policy,
            trained.adapter,
            setup.domain.queries(self._context),
            sampling=config.sampling,
            judge=setup.judge,
            retention_queries=setup.retention,
            retention_limit=config.retention_limit,
        )
        return evaluation, evaluation.usage

    async def _without_adapter(self, setup: Setup) -> tuple[float | None, Usage]:
        evaluation = await self._services.evaluator.evaluate(
            self._policy,
            None,
            setup.domain.queries(self._context),
            sampling=setup.config.evaluation.sampling,
            judge=setup.judge,
        )
        return accuracy(evaluation.verdicts), evaluation.usage

    async def _stage(self, name: str, call: Callable[[], Awaitable[tuple[T, Usage]]]) -> T:
        """One stage, waited for patiently; the seconds are those of the try that came through."""

        async def timed() -> tuple[T, Usage]:
            began = time.monotonic()
            answer = await call()
            self._seconds[name] = time.monotonic() - began
            return answer

        value, usage = await patiently(timed, doing=name)
        self._usage += usage
        return value

    def _scored(self, config: RunConfig, trained: TrainingResult, evaluation: Evaluation) -> Result:
        after, before = accuracy(evaluation.verdicts), accuracy(evaluation.baseline_verdicts)
        forgetting = evaluation.retention.forgetting if evaluation.retention else None
        found = {
            "adapter": trained.adapter,
            "forgetting": forgetting,
            "verdicts": evaluation.verdicts,
            "baseline_verdicts": evaluation.baseline_verdicts,
        }
        fault = ungraded_fault(evaluation, config.evaluation.max_ungraded)
        if fault or after is None or before is None:
            return self._result(TrialState.FAILED, error=fault, **found)
        return self._result(
            TrialState.SUCCEEDED,
            accuracy=after,
            baseline_accuracy=before,
            reward=reward(after - before, forgetting, evaluation.divergence, config.reward),
            **found,
        )

    def _result(self, state: TrialState, **found: Any) -> Result:
        return Result(
            state=state, stage_seconds=self._seconds, usage=self._usage, trained_characters=self._characters, **found
        )


def group_sampling(config: RunConfig, plan: Plan) -> Sampling:
    """How a group's self-edits are sampled. On held-out contexts every policy gets the same seed, so that policies are
    compared in pairs; the generator derives each completion's own seed from context and index."""
    scope = ("held out",) if plan.phase is TrialPhase.HELD_OUT else ("round", plan.round)
    return config.editor.sampling.model_copy(update={"seed": seed_of(config.seed, *scope)})


def inner_seed(run_seed: int, plan: Plan) -> int:
    """Seed of a trial's inner loop: of its round, context and index; on held-out contexts the same for every policy."""
    scope = "held out" if plan.phase is TrialPhase.HELD_OUT else plan.round
    return seed_of(run_seed, "inner loop", scope, plan.context_id, plan.editor, plan.index)


def trained_characters(spec: TrainingSpec) -> int:
    """Characters that go through the model in a training: those of one pass, times epochs."""
    return sum(map(_characters, spec.examples)) * spec.optimisation.epochs


def with_budget(spec: TrainingSpec, target_characters: int | None) -> TrainingSpec:
    """The spec with as many epochs as come nearest to `target_characters`, at least one.

    Characters stand for tokens: both texts are of one language and tokenizer, so the ratio is nearly the same; and
    unlike the tokens that a trainer reports they do not depend on what it had cached.
    """
    if target_characters is None:
        return spec
    epochs = max(1, round(target_characters / sum(map(_characters, spec.examples))))
    return spec.model_copy(update={"optimisation": spec.optimisation.model_copy(update={"epochs": epochs})})


def ungraded_fault(evaluation: Evaluation, limit: float) -> Fault | None:
    """A fault where the judge failed on more than `limit` (a share) of the answers, or on all of one side's: nothing
    can be said of such a trial."""
    sides = (evaluation.verdicts, evaluation.baseline_verdicts)
    shares = [sum(v.outcome is Outcome.UNGRADED for v in side) / max(1, len(side)) for side in sides]
    if shares[0] <= limit and all(accuracy(side) is not None for side in sides):
        return None
    message = (
        f"the judge failed on {shares[0]:.0%} of the answers and {shares[1]:.0%} of the baseline's; "
        f"max_ungraded allows {limit:.0%}"
    )
    return Fault(code=9, reason="TOO_MANY_UNGRADED", message=message)  # FAILED_PRECONDITION


def _characters(example: TrainingExample) -> int:
    asked = len(example.prompt.user) + len(example.prompt.system) if example.prompt else 0
    return len(example.text) + asked
