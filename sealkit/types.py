"""The terms of docs/glossary.md as frozen, torch-free values. Those sent between processes have a message in
`seal.type.v1`."""

from __future__ import annotations

import hashlib
import json
import operator
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sealkit import limits


class Value(BaseModel):
    """A frozen value that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_stored(cls, stored: object) -> Self:
        """A value stored by any version: fields that this version does not have are ignored, at every depth. Raises
        ValidationError if a required field is missing or a value is invalid."""
        return cls.model_validate(stored, extra="ignore")

    def changed(self, **fields: Any) -> Self:
        """A copy with these fields replaced; validated."""
        return type(self)(**{**dict(self), **fields})


def digest_of(*parts: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `parts`; equal values give equal digests on every machine."""
    plain = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seed_of(*names: object) -> int:
    """A 63-bit seed that derives from names (run, round, context, index), never from a clock."""
    return int(digest_of(*[str(n) for n in names])[:16], 16) >> 1


class PromptFormat(StrEnum):
    AUTO = "auto"
    """The tokenizer's chat template if it has one, else plain."""
    PLAIN = "plain"
    CHAT = "chat"


_TEMPLATE_PARAMETERS = """
conversation messages tools documents chat_template add_generation_prompt continue_final_message tokenize
sanitize_control_tokens padding truncation max_length return_tensors return_dict return_assistant_tokens_mask
tokenizer_kwargs
"""
TEMPLATE_PARAMETERS = frozenset(_TEMPLATE_PARAMETERS.split())
"""Names that `chat_template_kwargs` must not have: parameters of transformers' `apply_chat_template`, and what it
passes to the template itself."""


class Shot(Value):
    """One example of a request and its answer, shown before the actual request."""

    user: str = Field(min_length=1)
    assistant: str = Field(min_length=1)


class Prompt(Value):
    """A prompt before rendering. It is rendered where the tokenizer is, in training exactly as in sampling. In a chat
    the `shots` are separate turns before the request; as plain text each is its two texts and a blank line."""

    user: str = Field(min_length=1)
    system: str = ""
    format: PromptFormat = PromptFormat.AUTO
    shots: tuple[Shot, ...] = Field((), max_length=limits.SHOTS)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, exclude_if=operator.not_)
    """Arguments for the chat template, such as `enable_thinking`. Digests of prompts without any are those of versions
    without this field."""

    def __hash__(self) -> int:
        return hash((self.user, self.system, self.format, self.shots, digest_of(self.chat_template_kwargs)))


class Sampling(Value):
    """How text is sampled. `temperature` 0 is greedy; `max_tokens` counts the completion alone."""

    temperature: float = Field(1.0, ge=0, le=10)
    """0: greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample only from the most likely tokens that together have this probability; 1: from all."""
    max_tokens: int = Field(256, ge=1, le=limits.COMPLETION_TOKENS)
    """Most tokens of the completion."""
    stop: tuple[Annotated[str, Field(min_length=1, max_length=limits.STOP_CHARACTERS)], ...] = Field(
        (), max_length=limits.STOPS
    )
    """Texts that end the completion; they are not part of it."""
    seed: int = Field(0, ge=0, lt=2**64)
    """In a run each completion has its own, derived from the run's."""
    json_schema: str = Field("", max_length=100_000)
    """A JSON Schema that the completion must follow, if the backend supports it; empty: free text."""


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"


class AdapterRef(Value):
    """An adapter in the store, by the SHA-256 of what determines its weights."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Policy(Value):
    """The model that writes self-edits: the base model, with `adapter` on it if there is one."""

    name: str = Field(min_length=1, max_length=limits.NAME_CHARACTERS)
    adapter: AdapterRef | None = None


class ModelInfo(Value):
    """The base model of a process. `digest` covers all that its answers depend on: weights, config, tokenizer, chat
    template and end tokens."""

    name: str
    digest: str
    tokenizer_digest: str
    context_length: int
    dtype: str
    device: str
    build: dict[str, str] = Field(default_factory=dict)
    """Other facts: versions, processor and threads, which determine results to the last bit; limits of the model."""


class Occupancy(Value):
    """How busy a replica of a model service is: `running` jobs in its batch (trainings of a trainer, texts that the
    others sample) of at most `capacity`, and `waiting` ones."""

    running: int
    capacity: int
    waiting: int
    step_tokens: int | None = None
    """Tokens of a trainer's last step; 0 if no job runs."""
    step_tokens_limit: int | None = None
    """Most tokens of a trainer's step, unless a single micro-batch is larger."""


class PromptLoss(StrEnum):
    """Which tokens of a training example's rendered prompt carry loss."""

    NONE = "none"
    SHOTS = "shots"
    """The answers of the prompt's shots."""
    ALL = "all"


class TrainingExample(Value):
    """One sequence: the rendered prompt (no loss, unless `prompt_loss` says otherwise), then the text. `loss_spans`:
    [start, end) characters of the text that carry loss; none means all of it.

    With a `teacher_prompt` the text is distilled: its targets are the distributions of the frozen model below the
    adapter, which sees that prompt in the place of `prompt` (prompt distillation, arXiv 2412.14964)."""

    text: str = Field(min_length=1)
    prompt: Prompt | None = None
    prompt_loss: PromptLoss = PromptLoss.NONE
    loss_spans: tuple[tuple[int, int], ...] = ()
    teacher_prompt: Prompt | None = None


class LoraConfig(Value):
    """Shape of an adapter in PEFT's terms: `r`, `lora_alpha`, `lora_dropout`, `target_modules`."""

    rank: int = Field(32, ge=1, le=limits.RANK)
    """Rank of the two factors; weights and memory are proportional to it."""
    alpha: float = Field(64, gt=0)
    """The update B A is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the adapter's inputs in training."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1, max_length=64
    )
    """Linear layers that get an adapter, by the last parts of their names."""


class Schedule(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Optimisation(Value):
    """How an adapter is optimised: AdamW (betas 0.9, 0.999, epsilon 1e-8). `max_grad_norm` 0 turns clipping off;
    `kl_beta` weighs KL(base || adapted) on the label positions."""

    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Peak learning rate, after the warm-up; docs/loss.md compares it with SEAL's."""
    epochs: int = Field(10, ge=1, le=10000)
    """Passes over the examples."""
    batch_size: int = Field(1, ge=1, le=4096)
    """Examples of a micro-batch, whose loss is the mean over their label tokens."""
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    """Micro-batches of an optimiser step."""
    schedule: Schedule = Schedule.CONSTANT
    """Schedule after the warm-up: `constant`; or `linear` or `cosine`, down to 0 at the end."""
    warmup_steps: int = Field(0, ge=0, le=limits.INT32)
    """Optimiser steps of linear warm-up from 0."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(0.0, ge=0)
    """Gradients are clipped to this 2-norm; 0: no clipping."""
    kl_beta: float = Field(0.0, ge=0)
    """Weight of KL(base || adapted), nats a token over the label positions, in the loss; 0: left out."""


class Distillation(Value):
    """The loss of examples with a teacher prompt: kl_weight * KL(teacher || student) + ce_weight * CE, per token."""

    kl_weight: float = Field(1.0, ge=0, le=1000)
    """Weight of KL(teacher || student), nats a token."""
    ce_weight: float = Field(0.0, ge=0, le=1000)
    """Weight of the cross-entropy of the text itself."""
    top_k: int = Field(64, ge=0, le=4096)
    """The teacher's most likely tokens that are kept at each position; the rest of the probability is one bucket. 0:
    the full distribution."""

    @model_validator(mode="after")
    def _learns(self) -> Distillation:
        if not (self.kl_weight or self.ce_weight):
            raise ValueError("kl_weight and ce_weight are both 0, so there is nothing to learn")
        return self


class Anchoring(Value):
    """How the anchors of a spec are mixed into each optimiser step."""

    per_step: int = Field(0, ge=0, le=1024)
    """Anchors per step, in a seeded order; 0: none."""
    weight: float = Field(1.0, ge=0, le=1000)
    """Weight of their mean KL(base || adapted), nats a token, added to the loss of the examples."""
    contrast: bool = False
    """Fix A of each layer to the directions of its input in which the examples differ most from the anchors; only B is
    trained. So the outputs on texts that are like the anchors change little."""


class TrainingSpec(Value):
    """Everything that determines an adapter, except the base model and the policy under it."""

    examples: tuple[TrainingExample, ...] = Field(min_length=1, max_length=limits.EXAMPLES)
    rehearsal: tuple[TrainingExample, ...] = Field((), max_length=limits.EXAMPLES)
    anchors: tuple[TrainingExample, ...] = Field((), max_length=limits.EXAMPLES)
    """Prompts with the base model's own answers; KL to the base model is kept low on them."""
    lora: LoraConfig
    optimisation: Optimisation
    distillation: Distillation = Distillation()
    anchoring: Anchoring = Anchoring()
    append_eos: bool = True
    seed: int = Field(0, ge=0, lt=2**64)

    @model_validator(mode="after")
    def _contrasts_with_something(self) -> TrainingSpec:
        if self.anchoring.contrast and not self.anchors:
            raise ValueError("anchoring.contrast compares the examples with anchors: give anchors, or set it to false")
        return self


class PolicyExample(Value):
    """One kept self-edit: the policy's prompt and completion."""

    prompt: Prompt
    completion: str = Field(min_length=1)


class View(Value):
    """Another form of the query; `label` names the transform, for the judge."""

    label: str = Field(min_length=1, max_length=256)
    prompt: Prompt


class Query(Value):
    """One held-out question about a context, asked without the context in the prompt. The answers to the prompt and to
    all `views` get one verdict together. An answer that agrees with `gold` or with any of `other_golds` is right."""

    query_id: str = Field(min_length=1, max_length=limits.QUERY_ID_CHARACTERS)
    question: str = Field(min_length=1)
    gold: str = Field(min_length=1)
    prompt: Prompt
    views: tuple[View, ...] = Field((), max_length=limits.VIEWS)
    # Without any, a query is dumped as before this field existed: its digest is in the manifests of stored trials.
    other_golds: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), max_length=limits.OTHER_GOLDS, exclude_if=lambda golds: not golds
    )

    @property
    def golds(self) -> tuple[str, ...]:
        """All gold answers."""
        return (self.gold, *self.other_golds)


class Outcome(StrEnum):
    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNGRADED = "ungraded"
    """The judge failed; counted separately, never as incorrect."""


NOT_ASKED = "not asked"
"""Reason of an ungraded verdict on a query that early stopping left out."""
NOT_ANSWERED = "not answered: "
"""Begin of the reason of an incorrect verdict on a query whose answer ended inside its reasoning."""


class Verdict(Value):
    query_id: str
    answer: str
    outcome: Outcome
    reason: str = ""
    reasoning: str = ""
    """What the model wrote before the answer, if it reasons; not judged."""


class Usage(Value):
    """The cost of some work. If jobs ran together, `device_seconds` are divided by their share of the tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    train_tokens: int = 0
    device_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Read, sampled and trained on."""
        return self.prompt_tokens + self.completion_tokens + self.train_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class AnswerDelta(Value):
    """The next piece of an answer, as it is sampled; the pieces together are the answer."""

    text: str = ""
    reasoning: str = ""
    """More of what the model writes before the text, if it reasons."""


class AnswerEnd(Value):
    """The end of an answer."""

    finish_reason: FinishReason
    usage: Usage = Usage()


class Completion(Value):
    """One sampled self-edit text of a context's group."""

    context_id: str
    index: int
    text: str
    finish_reason: FinishReason
    usage: Usage = Usage()
    reasoning: str = ""
    """What the model wrote before the text, if it reasons; kept apart, never trained on."""


class Progress(Value):
    """Progress of a training job; `loss` in nats per label token."""

    step: int
    total_steps: int
    loss: float


class TrainingResult(Value):
    adapter: AdapterRef
    cached: bool
    steps: int
    first_loss: float
    final_loss: float
    weights_sha256: str = ""
    usage: Usage = Usage()


class Retention(Value):
    """Accuracies in [0, 1] over the `kept` queries: those of the suite that the base model answers right, and the
    earlier ones that the baseline answers right."""

    kept: int
    accuracy_before: float
    accuracy_after: float
    forgetting: float
    forgetting_low: float = -1.0
    forgetting_high: float = 1.0
    lost_query_ids: tuple[str, ...] = ()


class Divergence(Value):
    """KL(base || subject) in nats a token: on the queries' prompts (None without any) and on a fixed text."""

    on_queries: float | None = None
    on_fixed_text: float


class EarlyStopping(Value):
    """A sequential test: every `interval` queries, stop once the subject is below `to_beat` (None: its baseline) with
    `confidence`."""

    to_beat: float | None = Field(None, ge=0, le=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    interval: int = Field(4, ge=1, le=limits.INT32)


class EvaluationRequest(Value):
    """What an evaluation asks and measures. The subject is the policy with `adapter`, its baseline the policy alone;
    without an adapter they are the policy and the base model."""

    policy: Policy
    adapter: AdapterRef | None = None
    queries: tuple[Query, ...] = Field((), max_length=limits.QUERIES)
    """Asked of subject and baseline; may be empty if only retention or divergence is measured."""
    earlier_queries: tuple[Query, ...] = Field((), max_length=limits.QUERIES)
    """Of contexts learned earlier: those that the baseline answers right are part of the retention. They are asked in
    full whether or not the evaluation stops early."""
    sampling: Sampling
    judge: str = Field(min_length=1, max_length=256)
    retention_queries: tuple[Query, ...] = Field((), max_length=limits.QUERIES)
    """The retention suite: those that the base model answers right are asked of subject and baseline."""
    retention_limit: int = Field(0, ge=0, le=limits.INT32)
    """At most this many of the suite's queries that the base model answers right are used, in order; 0: all."""
    measure_divergence: bool = False
    """Measure KL(base || subject) too, if the backend can."""
    early_stopping: EarlyStopping | None = None
    """None: every query is asked."""
    fresh: bool = False
    """Use no cache, not even for the baseline (for reruns)."""


class Evaluation(Value):
    """Verdicts of a subject and of its baseline, in the order of the queries."""

    verdicts: tuple[Verdict, ...]
    baseline_verdicts: tuple[Verdict, ...]
    retention: Retention | None = None
    divergence: Divergence | None = None
    stopped_early: bool = False
    batch_variant_rate: float = 0.0
    judge_version: str = ""
    usage: Usage = Usage()
    """Of this request: all answers of subject and baseline, also to the retention suite, but cached ones count for the
    request that first asked. Of divergence and judge, only the time, in `wall_seconds`."""


def accuracy(verdicts: tuple[Verdict, ...]) -> float | None:
    """Share of the graded verdicts that are correct, in [0, 1]; None if none was graded."""
    graded = [v for v in verdicts if v.outcome is not Outcome.UNGRADED]
    return sum(v.outcome is Outcome.CORRECT for v in graded) / len(graded) if graded else None
