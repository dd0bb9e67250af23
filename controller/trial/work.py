"""A trial: one self-edit → adapter → evaluation → reward.

Every step is idempotent: sampled texts (the self-edit, a teacher's answers) are stored at once, seeds derive from
names, and the trainer returns the adapter of a spec that it has trained before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from controller.db.attempts import Result, Sampled, Spent, Taken
from controller.db.database import storable
from controller.db.manifest import Instructions, Manifest
from controller.retry import last, retry_until_available, training_result
from controller.rules.arms import WRITERS, outside_editor
from controller.rules.reward import reward
from controller.rules.setup import BASE, Setup
from controller.services import Services
from controller.trial.manifest import found, instructions, material
from controller.trial.versions import Versions
from sealkit.config import RunConfig
from sealkit.domains.base import Rejected, Study, spec_of
from sealkit.errors import AdapterNotFound, NotReproducible, OnlyReasoning, SealError, TooManyUngraded, Unavailable
from sealkit.faults import fault_of
from sealkit.names import run_name
from sealkit.observability import tracing
from sealkit.reasoning import Said, no_answer
from sealkit.resources import Editor, Fault, TrialState
from sealkit.types import (
    NOT_ANSWERED,
    NOT_ASKED,
    Evaluation,
    EvaluationRequest,
    Outcome,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    Usage,
    accuracy,
)

T = TypeVar("T")

_TEACHING = ("inner_loop.teaching.max_tokens", "evaluation.chat_template_kwargs")
"""The settings that a teacher's reasoning depends on."""
KeepSampled = Callable[[Sampled, Spent], Awaitable[None]]


class TrialWork:
    """One attempt at a trial; usage of earlier attempts is added."""

    def __init__(self, taken: Taken, services: Services, versions: Versions, keep: KeepSampled) -> None:
        """`keep` stores what was sampled, and its usage."""
        self._plan = taken.plan
        self._context = taken.context
        self._policy = taken.policy
        self._sampled = taken.sampled
        self._rerun = taken.manifest
        self._services = services
        self._versions = versions
        self._keep = keep
        self._seconds = dict(taken.spent.stage_seconds)
        self._usage = dict(taken.spent.stage_usage)
        self._characters: int | None = None

    async def bring_to_end(self, setup: Setup) -> Result:
        """generate → teach → compile → train → evaluate → reward. Raises the services' errors that a retry does not
        fix; NotReproducible if the policy of a rerun no longer exists."""
        how = self._rerun.instructions if self._rerun else instructions(setup, self._plan, self._policy)
        try:
            return await self._make(setup, how)
        except AdapterNotFound as error:
            lost = error.metadata.get("digest")
            if self._rerun and how.policy.adapter and how.policy.adapter.digest == lost:
                raise NotReproducible(
                    f"{how.policy.name} is no longer in the adapter store: {error.message}"
                ) from error
            raise

    async def _make(self, setup: Setup, how: Instructions) -> Result:
        try:
            spec = await self._compile(setup, how)
        except Rejected as rejected:
            # It trains nothing, so its accuracy is that of the model that the adapter would be on.
            known = await self._stage("evaluate", lambda: self._without_adapter(setup, how))
            manifest = await self._manifest(setup, how, None, None, known)
            return Result(
                state=TrialState.REJECTED,
                rejection=str(rejected),
                baseline_accuracy=accuracy(known.verdicts),
                generated_exam=self._context.generated,
                manifest=manifest,
                spent=self._spent(),
            )
        trained = await self._stage("train", lambda: self._train(spec, how))
        evaluation = await self._stage("evaluate", lambda: self._evaluate(setup, trained, how))
        manifest = await self._manifest(setup, how, spec, trained, evaluation)
        return self._scored(setup.config, trained, evaluation, manifest)

    def failed(self, error: SealError) -> Result:
        """The result of a trial that failed with `error`."""
        return Result(
            state=TrialState.FAILED,
            error=fault_of(error),
            trained_characters=self._characters,
            generated_exam=self._context.generated,
            spent=self._spent(),
        )

    async def _compile(self, setup: Setup, how: Instructions) -> TrainingSpec:
        domain = setup.domain
        if how.sampling is None:
            spec = await asyncio.to_thread(domain.context_only, self._context, how.inner_seed)
            spec = with_budget(spec, how.target_characters)
        else:
            completion = await self._self_edit(setup, how, how.sampling)
            study = await asyncio.to_thread(setup.study, self._context, completion)
            answers = await self._taught(how, study) if study else ()
            spec = await asyncio.to_thread(spec_of, domain, self._context, completion, answers, how.inner_seed)
        spec = setup.mixed(spec)
        self._characters = trained_characters(spec)
        return spec

    async def _self_edit(self, setup: Setup, how: Instructions, sampling: Sampling) -> str:
        """The self-edit's text. Raises Rejected: ONLY_REASONING, if it ended inside the model's reasoning."""
        if self._sampled is None:
            ready = {} if how.editor in WRITERS else setup.domain.ready_made(self._context)
            text = ready.get(how.editor)
            said = Said(text or "")
            if text is None:
                outside = outside_editor(how.editor, ready)
                said = await self._stage("generate", lambda: self._generate(setup, how, sampling, outside))
            self._sampled = Sampled(completion=storable(said.text), reasoning=storable(said.reasoning))
            await self._keep(self._sampled, self._spent())
        said = Said(self._sampled.completion, self._sampled.reasoning)
        if unsaid := no_answer(said, "editor.sampling.max_tokens", "editor.chat_template_kwargs"):
            raise Rejected("ONLY_REASONING", unsaid)
        return said.text

    async def _taught(self, how: Instructions, study: Study) -> tuple[str, ...]:
        """The teacher's answers to a study, in the order of its items. Raises Rejected: ONLY_REASONING, if all ended
        inside the teacher's reasoning."""
        assert self._sampled is not None
        answers, thoughts = self._sampled.teacher_answers, self._sampled.teacher_reasoning
        if answers is None:
            said = await self._stage("teach", lambda: self._teach(how, study))
            answers = tuple(storable(one.text) for one in said)
            thoughts = tuple(storable(one.reasoning) for one in said) if any(one.reasoning for one in said) else ()
            self._sampled = self._sampled.changed(teacher_answers=answers, teacher_reasoning=thoughts)
            await self._keep(self._sampled, self._spent())
        unsaid = [no_answer(Said(*one), *_TEACHING) for one in zip(answers, thoughts, strict=bool(thoughts))]
        if unsaid and all(unsaid):
            raise Rejected("ONLY_REASONING", f"the teacher's answers: {unsaid[0]}")
        return answers

    async def _generate(self, setup: Setup, how: Instructions, sampling: Sampling, outside: str) -> tuple[Said, Usage]:
        if how.constrained:
            sampling = sampling.changed(json_schema=setup.domain.completion_schema)
        prompts = [(how.context_id, setup.prompt(self._context), [how.index])]
        writer = BASE if how.editor == Editor.BASE else how.policy
        written = await last(self._services.generator.sample(writer, prompts, sampling, editor=outside))
        if written is None:
            raise Unavailable("the generator ended the stream without the completion")
        return Said(written.text, written.reasoning), written.usage

    async def _teach(self, how: Instructions, study: Study) -> tuple[list[Said], Usage]:
        """One request for all prompts, which the generator batches."""
        prompts = [(f"question-{number}", item.teacher_prompt, [0]) for number, item in enumerate(study.items)]
        said = {c.context_id: c async for c in self._services.generator.sample(how.below, prompts, how.teaching)}
        if len(said) < len(prompts):
            raise Unavailable(f"the generator ended the stream with {len(said)} of {len(prompts)} answers")
        answers = [Said(said[name].text, said[name].reasoning) for name, _, _ in prompts]
        return answers, sum((one.usage for one in said.values()), Usage())

    async def _train(self, spec: TrainingSpec, how: Instructions) -> tuple[TrainingResult, Usage]:
        owner, again = run_name(self._plan.run_id), self._rerun is not None
        updates = self._services.trainer.train_adapter(how.below, spec, owner=owner, retrain=again)
        result = await training_result(updates)
        return result, result.usage

    async def _evaluate(self, setup: Setup, trained: TrainingResult, how: Instructions) -> tuple[Evaluation, Usage]:
        request = EvaluationRequest(
            policy=how.below,
            adapter=trained.adapter,
            queries=setup.queries(self._context),
            earlier_queries=setup.earlier,
            sampling=how.answering,
            judge=how.judge,
            retention_queries=setup.retention,
            retention_limit=how.retention_limit,
            measure_divergence=how.divergence,
            early_stopping=how.early_stopping,
            fresh=self._rerun is not None,
        )
        evaluation = await self._services.evaluator.evaluate(request)
        return evaluation, evaluation.usage

    async def _without_adapter(self, setup: Setup, how: Instructions) -> tuple[Evaluation, Usage]:
        request = EvaluationRequest(
            policy=how.below,
            queries=setup.queries(self._context),
            sampling=how.answering,
            judge=how.judge,
            fresh=self._rerun is not None,
        )
        evaluation = await self._services.evaluator.evaluate(request)
        return evaluation, evaluation.usage

    async def _stage(self, name: str, call: Callable[[], Awaitable[tuple[T, Usage]]]) -> T:
        """Executes one stage with retries; its seconds are those of the successful try."""

        async def timed() -> tuple[T, Usage]:
            began = time.monotonic()
            answer = await call()
            self._seconds[name] = time.monotonic() - began
            return answer

        with tracing.span(name):
            value, usage = await retry_until_available(timed, doing=name)
        self._usage[name] = self._usage.get(name, Usage()) + usage
        return value

    async def _manifest(
        self,
        setup: Setup,
        how: Instructions,
        spec: TrainingSpec | None,
        trained: TrainingResult | None,
        evaluation: Evaluation,
    ) -> Manifest:
        versions = {
            **await self._versions.get(),
            "domain": f"{setup.domain.name} {setup.domain.version}",
            "judge": f"{how.judge} {evaluation.judge_version}".strip(),
        }
        came_out = found(self._sampled, spec, trained, evaluation)
        return Manifest(instructions=how, material=material(setup, self._context), found=came_out, versions=versions)

    def _scored(self, config: RunConfig, trained: TrainingResult, evaluation: Evaluation, manifest: Manifest) -> Result:
        """The result of an evaluated trial: failed if too many answers are ungraded or none was given, else with its
        accuracies. A trial that was stopped early has no reward."""
        fault = ungraded_fault(evaluation, config.evaluation.max_ungraded) or unanswered_fault(evaluation)
        after, before = accuracy(evaluation.verdicts), accuracy(evaluation.baseline_verdicts)
        forgetting = evaluation.retention.forgetting if evaluation.retention else None
        gain = None if after is None or before is None else after - before
        earned = None
        if fault is None and gain is not None and not evaluation.stopped_early:
            earned = reward(gain, forgetting, evaluation.divergence, config.reward)
        return Result(
            state=TrialState.FAILED if fault else TrialState.SUCCEEDED,
            error=fault,
            adapter=trained.adapter,
            trained_characters=self._characters,
            accuracy=None if fault else after,
            baseline_accuracy=None if fault else before,
            forgetting=forgetting,
            retention=evaluation.retention,
            divergence=evaluation.divergence,
            stopped_early=evaluation.stopped_early,
            batch_variant_rate=evaluation.batch_variant_rate,
            generated_exam=self._context.generated,
            reward=earned,
            verdicts=evaluation.verdicts,
            baseline_verdicts=evaluation.baseline_verdicts,
            spent=self._spent(),
            manifest=manifest,
        )

    def _spent(self) -> Spent:
        """The usage of all attempts so far."""
        return Spent(stage_seconds=self._seconds, stage_usage=self._usage)


def trained_characters(spec: TrainingSpec) -> int:
    """Characters that a training processes: those of one epoch times the number of epochs."""
    return sum(map(_characters, spec.examples)) * spec.optimisation.epochs


def with_budget(spec: TrainingSpec, target_characters: int | None) -> TrainingSpec:
    """The spec with the number of epochs (at least 1) that is nearest to `target_characters`.

    Characters stand for tokens: both texts have the same language and tokenizer, so the ratio is nearly the same; and
    unlike the tokens that a trainer reports, they do not depend on its cache.
    """
    if target_characters is None:
        return spec
    epochs = max(1, round(target_characters / sum(map(_characters, spec.examples))))
    return spec.changed(optimisation=spec.optimisation.changed(epochs=epochs))


def ungraded_fault(evaluation: Evaluation, limit: float) -> Fault | None:
    """A fault if the judge failed on more than `limit` (a share) of the answers, or on all answers of the subject or of
    the baseline: such a trial has no valid score."""
    sides = [
        tuple(v for v in side if v.reason != NOT_ASKED) for side in (evaluation.verdicts, evaluation.baseline_verdicts)
    ]
    shares = [sum(v.outcome is Outcome.UNGRADED for v in side) / max(1, len(side)) for side in sides]
    if shares[0] <= limit and all(accuracy(side) is not None for side in sides):
        return None
    message = (
        f"the judge failed on {shares[0]:.0%} of the answers and {shares[1]:.0%} of the baseline's; "
        f"max_ungraded allows {limit:.0%}"
    )
    return fault_of(TooManyUngraded(message))


def unanswered_fault(evaluation: Evaluation) -> Fault | None:
    """A fault if every answer, of subject and baseline, ended inside the model's reasoning: nothing was measured."""
    reasons = [v.reason for v in (*evaluation.verdicts, *evaluation.baseline_verdicts) if v.reason != NOT_ASKED]
    if not reasons or not all(reason.startswith(NOT_ANSWERED) for reason in reasons):
        return None
    return fault_of(OnlyReasoning(f"no question was answered, without the adapter either: {reasons[0]}"))


def _characters(example: TrainingExample) -> int:
    prompt = example.prompt
    if prompt is None:
        return len(example.text)
    shots = sum(len(shot.user) + len(shot.assistant) for shot in prompt.shots)
    return len(prompt.system) + shots + len(prompt.user) + len(example.text)
