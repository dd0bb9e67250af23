"""Values of `sealkit.types` to the messages of the model services and back.

A message is taken as valid here: what comes from outside was checked at the door (`sealkit.rpc.interceptors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from seal.evaluator.v1 import evaluator_pb2
from seal.generator.v1 import generator_pb2
from seal.trainer.v1 import trainer_pb2
from seal.type.v1 import evaluation_pb2, model_pb2, text_pb2, training_pb2

from sealkit.errors import InvalidInput
from sealkit.types import (
    AdapterRef,
    Anchoring,
    Completion,
    Distillation,
    Divergence,
    EarlyStopping,
    Evaluation,
    FinishReason,
    LoraConfig,
    ModelInfo,
    Optimisation,
    Outcome,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    PromptFormat,
    PromptLoss,
    Query,
    Retention,
    Sampling,
    Schedule,
    Shot,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    Usage,
    Verdict,
    View,
)

W = TypeVar("W", bound=StrEnum)
N = TypeVar("N", bound=int)

PROMPT_FORMATS = {
    PromptFormat.AUTO: text_pb2.PROMPT_FORMAT_UNSPECIFIED,
    PromptFormat.PLAIN: text_pb2.PROMPT_FORMAT_PLAIN,
    PromptFormat.CHAT: text_pb2.PROMPT_FORMAT_CHAT,
}
PROMPT_LOSSES = {
    PromptLoss.NONE: training_pb2.PROMPT_LOSS_UNSPECIFIED,
    PromptLoss.SHOTS: training_pb2.PROMPT_LOSS_SHOTS,
    PromptLoss.ALL: training_pb2.PROMPT_LOSS_ALL,
}
FINISH_REASONS = {
    FinishReason.STOP: text_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: text_pb2.FINISH_REASON_LENGTH,
}
SCHEDULES = {
    Schedule.CONSTANT: training_pb2.SCHEDULE_CONSTANT,
    Schedule.LINEAR: training_pb2.SCHEDULE_LINEAR,
    Schedule.COSINE: training_pb2.SCHEDULE_COSINE,
}
OUTCOMES = {
    Outcome.CORRECT: evaluation_pb2.OUTCOME_CORRECT,
    Outcome.INCORRECT: evaluation_pb2.OUTCOME_INCORRECT,
    Outcome.UNGRADED: evaluation_pb2.OUTCOME_UNGRADED,
}


def word_from_number(table: Mapping[W, N], number: int) -> W:
    """The word of an enum's number. Raises InvalidInput on a number that this version does not know."""
    for word, known in table.items():
        if known == number:
            return word
    raise InvalidInput(f"{type(next(iter(table))).__name__} has no value {number} in this version of the suite")


def prompt_to_pb(prompt: Prompt) -> text_pb2.Prompt:
    return text_pb2.Prompt(
        user=prompt.user,
        system=prompt.system,
        format=PROMPT_FORMATS[prompt.format],
        shots=[text_pb2.Shot(user=shot.user, assistant=shot.assistant) for shot in prompt.shots],
    )


def prompt_from_pb(pb: text_pb2.Prompt) -> Prompt:
    return Prompt(
        user=pb.user,
        system=pb.system,
        format=word_from_number(PROMPT_FORMATS, pb.format),
        shots=tuple(Shot(user=shot.user, assistant=shot.assistant) for shot in pb.shots),
    )


def sampling_to_pb(sampling: Sampling) -> text_pb2.Sampling:
    return text_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        seed=sampling.seed,
        json_schema=sampling.json_schema,
    )


def sampling_from_pb(pb: text_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=pb.temperature,
        top_p=pb.top_p,
        max_tokens=pb.max_tokens,
        stop=tuple(pb.stop),
        seed=pb.seed,
        json_schema=pb.json_schema,
    )


def adapter_ref_to_pb(adapter: AdapterRef | None) -> model_pb2.AdapterRef | None:
    return model_pb2.AdapterRef(digest=adapter.digest) if adapter else None


def adapter_ref_from_pb(pb: model_pb2.AdapterRef) -> AdapterRef | None:
    """None for a field that is not set."""
    return AdapterRef(digest=pb.digest) if pb.digest else None


def policy_to_pb(policy: Policy) -> model_pb2.Policy:
    return model_pb2.Policy(name=policy.name, adapter=adapter_ref_to_pb(policy.adapter))


def policy_from_pb(pb: model_pb2.Policy) -> Policy:
    return Policy(name=pb.name, adapter=adapter_ref_from_pb(pb.adapter))


def model_info_to_pb(info: ModelInfo) -> model_pb2.BaseModel:
    return model_pb2.BaseModel(**info.model_dump())


def model_info_from_pb(pb: model_pb2.BaseModel) -> ModelInfo:
    plain = {name: getattr(pb, name) for name in ModelInfo.model_fields if name != "build"}
    return ModelInfo(**plain, build=dict(pb.build))


def usage_to_pb(usage: Usage) -> evaluation_pb2.Usage:
    return evaluation_pb2.Usage(**usage.model_dump())


def usage_from_pb(pb: evaluation_pb2.Usage) -> Usage:
    return Usage(**{name: getattr(pb, name) for name in Usage.model_fields})


def training_example_to_pb(example: TrainingExample) -> training_pb2.TrainingExample:
    return training_pb2.TrainingExample(
        text=example.text,
        prompt=prompt_to_pb(example.prompt) if example.prompt else None,
        prompt_loss=PROMPT_LOSSES[example.prompt_loss],
        loss_spans=[training_pb2.Span(start=start, end=end) for start, end in example.loss_spans],
        teacher_prompt=prompt_to_pb(example.teacher_prompt) if example.teacher_prompt else None,
    )


def training_example_from_pb(pb: training_pb2.TrainingExample) -> TrainingExample:
    return TrainingExample(
        text=pb.text,
        prompt=prompt_from_pb(pb.prompt) if pb.HasField("prompt") else None,
        prompt_loss=word_from_number(PROMPT_LOSSES, pb.prompt_loss),
        loss_spans=tuple((span.start, span.end) for span in pb.loss_spans),
        teacher_prompt=prompt_from_pb(pb.teacher_prompt) if pb.HasField("teacher_prompt") else None,
    )


def lora_config_to_pb(lora: LoraConfig) -> training_pb2.LoraConfig:
    return training_pb2.LoraConfig(**lora.model_dump())


def lora_config_from_pb(pb: training_pb2.LoraConfig) -> LoraConfig:
    return LoraConfig(rank=pb.rank, alpha=pb.alpha, dropout=pb.dropout, target_modules=tuple(pb.target_modules))


def optimisation_to_pb(optimisation: Optimisation) -> training_pb2.Optimisation:
    plain = optimisation.model_dump(exclude={"schedule"})
    return training_pb2.Optimisation(**plain, schedule=SCHEDULES[optimisation.schedule])


def optimisation_from_pb(pb: training_pb2.Optimisation) -> Optimisation:
    plain = {name: getattr(pb, name) for name in Optimisation.model_fields if name != "schedule"}
    return Optimisation(**plain, schedule=word_from_number(SCHEDULES, pb.schedule))


def distillation_from_pb(pb: training_pb2.Distillation) -> Distillation:
    return Distillation(**{name: getattr(pb, name) for name in Distillation.model_fields})


def anchoring_from_pb(pb: training_pb2.Anchoring) -> Anchoring:
    return Anchoring(**{name: getattr(pb, name) for name in Anchoring.model_fields})


def training_spec_to_pb(spec: TrainingSpec) -> training_pb2.TrainingSpec:
    return training_pb2.TrainingSpec(
        examples=[training_example_to_pb(e) for e in spec.examples],
        rehearsal=[training_example_to_pb(e) for e in spec.rehearsal],
        anchors=[training_example_to_pb(e) for e in spec.anchors],
        distillation=training_pb2.Distillation(**spec.distillation.model_dump()),
        anchoring=training_pb2.Anchoring(**spec.anchoring.model_dump()),
        lora=lora_config_to_pb(spec.lora),
        optimisation=optimisation_to_pb(spec.optimisation),
        append_eos=spec.append_eos,
        seed=spec.seed,
    )


def training_spec_from_pb(pb: training_pb2.TrainingSpec) -> TrainingSpec:
    return TrainingSpec(
        examples=tuple(training_example_from_pb(e) for e in pb.examples),
        rehearsal=tuple(training_example_from_pb(e) for e in pb.rehearsal),
        anchors=tuple(training_example_from_pb(e) for e in pb.anchors),
        distillation=distillation_from_pb(pb.distillation) if pb.HasField("distillation") else Distillation(),
        anchoring=anchoring_from_pb(pb.anchoring) if pb.HasField("anchoring") else Anchoring(),
        lora=lora_config_from_pb(pb.lora),
        optimisation=optimisation_from_pb(pb.optimisation),
        append_eos=pb.append_eos,
        seed=pb.seed,
    )


def policy_example_to_pb(example: PolicyExample) -> trainer_pb2.PolicyExample:
    return trainer_pb2.PolicyExample(prompt=prompt_to_pb(example.prompt), completion=example.completion)


def policy_example_from_pb(pb: trainer_pb2.PolicyExample) -> PolicyExample:
    return PolicyExample(prompt=prompt_from_pb(pb.prompt), completion=pb.completion)


def progress_to_pb(progress: Progress) -> trainer_pb2.Progress:
    return trainer_pb2.Progress(**progress.model_dump())


def progress_from_pb(pb: trainer_pb2.Progress) -> Progress:
    return Progress(step=pb.step, total_steps=pb.total_steps, loss=pb.loss)


def training_result_to_pb(result: TrainingResult) -> trainer_pb2.TrainingResult:
    return trainer_pb2.TrainingResult(
        adapter=adapter_ref_to_pb(result.adapter),
        cached=result.cached,
        steps=result.steps,
        first_loss=result.first_loss,
        final_loss=result.final_loss,
        weights_sha256=result.weights_sha256,
        usage=usage_to_pb(result.usage),
    )


def training_result_from_pb(pb: trainer_pb2.TrainingResult) -> TrainingResult:
    return TrainingResult(
        adapter=AdapterRef(digest=pb.adapter.digest),
        cached=pb.cached,
        steps=pb.steps,
        first_loss=pb.first_loss,
        final_loss=pb.final_loss,
        weights_sha256=pb.weights_sha256,
        usage=usage_from_pb(pb.usage),
    )


def query_to_pb(query: Query) -> evaluation_pb2.Query:
    return evaluation_pb2.Query(
        query_id=query.query_id,
        question=query.question,
        gold=query.gold,
        prompt=prompt_to_pb(query.prompt),
        views=[evaluation_pb2.View(label=view.label, prompt=prompt_to_pb(view.prompt)) for view in query.views],
    )


def query_from_pb(pb: evaluation_pb2.Query) -> Query:
    return Query(
        query_id=pb.query_id,
        question=pb.question,
        gold=pb.gold,
        prompt=prompt_from_pb(pb.prompt),
        views=tuple(View(label=view.label, prompt=prompt_from_pb(view.prompt)) for view in pb.views),
    )


def verdict_to_pb(verdict: Verdict) -> evaluation_pb2.Verdict:
    return evaluation_pb2.Verdict(
        query_id=verdict.query_id, answer=verdict.answer, outcome=OUTCOMES[verdict.outcome], reason=verdict.reason
    )


def verdict_from_pb(pb: evaluation_pb2.Verdict) -> Verdict:
    outcome = word_from_number(OUTCOMES, pb.outcome)
    return Verdict(query_id=pb.query_id, answer=pb.answer, outcome=outcome, reason=pb.reason)


def completion_to_pb(completion: Completion) -> generator_pb2.SampleSelfEditsResponse:
    return generator_pb2.SampleSelfEditsResponse(
        context_id=completion.context_id,
        index=completion.index,
        completion=completion.text,
        finish_reason=FINISH_REASONS[completion.finish_reason],
        usage=usage_to_pb(completion.usage),
    )


def completion_from_pb(pb: generator_pb2.SampleSelfEditsResponse) -> Completion:
    return Completion(
        context_id=pb.context_id,
        index=pb.index,
        text=pb.completion,
        finish_reason=word_from_number(FINISH_REASONS, pb.finish_reason),
        usage=usage_from_pb(pb.usage),
    )


def retention_to_pb(retention: Retention) -> evaluator_pb2.Retention:
    return evaluator_pb2.Retention(**retention.model_dump())


def retention_from_pb(pb: evaluator_pb2.Retention) -> Retention:
    return Retention(
        kept=pb.kept,
        accuracy_before=pb.accuracy_before,
        accuracy_after=pb.accuracy_after,
        forgetting=pb.forgetting,
        forgetting_low=pb.forgetting_low,
        forgetting_high=pb.forgetting_high,
        lost_query_ids=tuple(pb.lost_query_ids),
    )


def divergence_to_pb(divergence: Divergence) -> evaluator_pb2.Divergence:
    return evaluator_pb2.Divergence(**divergence.model_dump(exclude_none=True))


def divergence_from_pb(pb: evaluator_pb2.Divergence) -> Divergence:
    return Divergence(on_queries=pb.on_queries if pb.HasField("on_queries") else None, on_fixed_text=pb.on_fixed_text)


def early_stopping_to_pb(early_stopping: EarlyStopping) -> evaluator_pb2.EarlyStopping:
    return evaluator_pb2.EarlyStopping(**early_stopping.model_dump(exclude_none=True))


def early_stopping_from_pb(pb: evaluator_pb2.EarlyStopping) -> EarlyStopping:
    return EarlyStopping(
        to_beat=pb.to_beat if pb.HasField("to_beat") else None, confidence=pb.confidence, interval=pb.interval
    )


def evaluation_to_pb(evaluation: Evaluation) -> evaluator_pb2.EvaluateResponse:
    return evaluator_pb2.EvaluateResponse(
        verdicts=[verdict_to_pb(v) for v in evaluation.verdicts],
        baseline_verdicts=[verdict_to_pb(v) for v in evaluation.baseline_verdicts],
        baseline_cached=evaluation.baseline_cached,
        retention=retention_to_pb(evaluation.retention) if evaluation.retention else None,
        divergence=divergence_to_pb(evaluation.divergence) if evaluation.divergence else None,
        stopped_early=evaluation.stopped_early,
        batch_variant_rate=evaluation.batch_variant_rate,
        judge_version=evaluation.judge_version,
        usage=usage_to_pb(evaluation.usage),
    )


def evaluation_from_pb(pb: evaluator_pb2.EvaluateResponse) -> Evaluation:
    return Evaluation(
        verdicts=tuple(verdict_from_pb(v) for v in pb.verdicts),
        baseline_verdicts=tuple(verdict_from_pb(v) for v in pb.baseline_verdicts),
        baseline_cached=pb.baseline_cached,
        retention=retention_from_pb(pb.retention) if pb.HasField("retention") else None,
        divergence=divergence_from_pb(pb.divergence) if pb.HasField("divergence") else None,
        stopped_early=pb.stopped_early,
        batch_variant_rate=pb.batch_variant_rate,
        judge_version=pb.judge_version,
        usage=usage_from_pb(pb.usage),
    )
