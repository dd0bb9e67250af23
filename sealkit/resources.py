"""The controller's resources as frozen values: returned by the database layer, sent by the service, returned by the
client.

Each has its message in `seal.controller.v1`; `sealkit.rpc.mapping` converts both ways by the names of the fields.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from sealkit.types import (
    AdapterRef,
    AnswerDelta,
    AnswerEnd,
    Divergence,
    Query,
    Retention,
    TrainingExample,
    Usage,
    Value,
    Verdict,
)


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a run stays in this state unless it is resumed."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


class TrialState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a trial in this state has ended."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


class TrialPhase(StrEnum):
    E_STEP = "e_step"
    HELD_OUT = "held_out"
    RERUN = "rerun"
    """A trial made again from another one's manifest, to compare; excluded from all results."""


class Editor(StrEnum):
    """The built-in editors. `Trial.editor` may also be any other name in the config's `arms`."""

    POLICY = "policy"
    BASE = "base"
    PASSAGE_ONLY = "passage_only"


class GateState(StrEnum):
    """Whether a policy may be published."""

    UNMEASURED = "unmeasured"
    PASSED = "passed"
    REFUSED = "refused"
    PENDING = "pending"
    """Its forgetting is within the limit; its comparison on the held-out contexts is not done."""

    @property
    def adopted(self) -> bool:
        """Whether the run continues from such a policy."""
        return self in (GateState.PASSED, GateState.UNMEASURED)


class Fault(Value):
    """An error as it is recorded: the reason of `sealkit.errors` and the message. `code` is a gRPC code's number."""

    code: int
    reason: str
    message: str


class RunProgress(Value):
    stage: str = ""
    rounds_done: int = 0
    rounds_total: int = 0
    trials_done: int = 0
    trials_total: int = 0


class Run(Value):
    """All rounds of one config. `config` is the resolved config, with every default filled in, as stored by the version
    that accepted the run."""

    name: str
    display_name: str
    state: RunState
    config: dict[str, Any]
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: Fault | None = None
    progress: RunProgress = RunProgress()
    tenant: str = ""
    """The owning tenant; empty: only admins."""
    active_seconds: float = 0.0
    """Seconds in which a worker drove it, by the workers' monotonic clocks."""
    unread_config: tuple[str, ...] = ()
    """Keys of `config` that the controller's version cannot read; with any, the run cannot continue."""


class Trial(Value):
    """One self-edit → adapter → evaluation → reward. Accuracies are in [0, 1], forgetting in [-1, 1]; None: not
    measured."""

    name: str
    round: int
    state: TrialState
    phase: TrialPhase
    context_id: str
    editor: str
    index: int
    policy: str
    completion: str = ""
    teacher_answers: tuple[str, ...] = ()
    """The teacher's answers to the self-edit's questions, in order."""
    reasoning: str = ""
    """What the model wrote before the self-edit, if it reasons; it is not trained on."""
    teacher_reasoning: tuple[str, ...] = ()
    """What the teacher wrote before each answer, in the same order; empty if it does not reason."""
    rejection: str = ""
    adapter: AdapterRef | None = None
    accuracy: float | None = None
    baseline_accuracy: float | None = None
    forgetting: float | None = None
    retention: Retention | None = None
    divergence: Divergence | None = None
    stopped_early: bool = False
    batch_variant_rate: float = 0.0
    generated_exam: bool = False
    """Whether models wrote the questions and gold answers that its accuracies are measured on."""
    reward: float | None = None
    selected: bool = False
    verdicts: tuple[Verdict, ...] = ()
    baseline_verdicts: tuple[Verdict, ...] = ()
    """On the same queries without the adapter."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    usage: Usage = Usage()
    stage_usage: dict[str, Usage] = Field(default_factory=dict)
    manifest: dict[str, Any] = Field(default_factory=dict)
    rerun_of: str = ""
    attempts: int = 0
    late_results: int = 0
    error: Fault | None = None
    create_time: datetime
    end_time: datetime | None = None


class TrialMaterial(Value):
    """What a trial was asked and trained on, made again from the run's dataset and the trial's texts."""

    queries: tuple[Query, ...] = ()
    """In order, without their views."""
    lost: tuple[Query, ...] = ()
    """The retention queries that were lost."""
    examples: tuple[TrainingExample, ...] = ()
    """The first training examples, as many as 1 MiB of text holds, without rehearsal and anchors; none: nothing was
    trained."""
    examples_total: int = 0


class PolicyVersion(Value):
    """A version of the policy. `version` counts within its run, from 0; `round` is the one that made it, None for θ_0.
    `scores`: its row of R, accuracy by context id; `verdicts`: those that they are made of, only with one policy."""

    name: str
    run: str
    version: int
    parent: str = ""
    round: int | None = None
    adapter: AdapterRef | None = None
    trials: tuple[str, ...] = ()
    forgetting: float | None = None
    held_out_accuracy: float | None = None
    retention: Retention | None = None
    divergence: Divergence | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    gate: GateState = GateState.UNMEASURED
    gate_reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    create_time: datetime
    usage: Usage = Usage()


class DocumentState(StrEnum):
    """What became of a document that a run was to learn."""

    WAITING = "waiting"
    LEARNED = "learned"
    NOT_ADOPTED = "not_adopted"
    """The alias is as it was before: nothing helped, or the gate refused."""
    SKIPPED = "skipped"
    """It cannot be read, or says nothing new."""
    FORGOTTEN = "forgotten"


class LostQuestion(Value):
    """A question that was answered right before a document was learned, and wrong after. `document`: the one that it is
    about; empty: it is of the retention suite, whose answers are not stored."""

    query_id: str
    document: str = ""
    question: str
    gold: str
    before: str = ""
    after: str = ""


class DocumentReport(Value):
    """What became of a document. Accuracies, in [0, 1], are of the version before and after it, on its own exam.

    Attributes:
        digest: SHA-256 of its bytes.
        replaces: Digest of its older version, which the alias knew; empty: none.
        passages: Passages that were read.
        learned: Passages of which a self-edit was kept.
        questions: Questions of its exam.
        generated: Whether models wrote the exam.
        seconds: From the start of its round to its end.
        policy: The version that the alias had after it; empty until then.
    """

    name: str
    digest: str
    title: str = ""
    format: str = ""
    state: DocumentState
    reason: str = ""
    notices: tuple[str, ...] = ()
    replaces: str = ""
    passages: int = 0
    learned: int = 0
    questions: int = 0
    generated: bool = True
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    lost: tuple[LostQuestion, ...] = ()
    seconds: float | None = None
    policy: str = ""


class LineageQuery(Value):
    """A question of a document's exam. `generated`: whether models wrote it and its gold answer."""

    query_id: str
    question: str
    gold: str
    generated: bool = False


class LineageTrial(Value):
    """A trial that a version was trained on. `self_edit` and `teacher_answers`: digests (SHA-256) of the trial's texts;
    `policy_adapter`: that of the policy that wrote the self-edit, None for the base model or an outside one."""

    name: str
    editor: str
    policy: str
    policy_adapter: AdapterRef | None = None
    self_edit: str
    teacher_answers: str
    adapter: AdapterRef | None = None


class LineageDocument(Value):
    """A document that a version was trained on, and the run that learned it. Accuracies on its exam are of the versions
    before and after it."""

    name: str
    digest: str
    run: str
    trials: tuple[LineageTrial, ...] = ()
    queries: tuple[LineageQuery, ...] = ()
    accuracy_before: float | None = None
    accuracy_after: float | None = None


class Lineage(Value):
    """Where a version comes from. `version` has its verdicts; `base_model` is the digest of the base model."""

    alias: str = ""
    version: PolicyVersion
    base_model: str
    documents: tuple[LineageDocument, ...] = ()


class AliasChange(Value):
    """One change of an alias: the policy, when, and why."""

    policy: str
    time: datetime
    reason: str = ""


class Alias(Value):
    """A name, unique in its tenant, that points to a published policy. `history`: newest first, with the current
    one."""

    name: str
    policy: str
    history: tuple[AliasChange, ...] = ()
    tenant: str = ""


class AnswerBegun(Value):
    """Who answers: the alias that was asked and the policy that it pointed to, with the digest of its adapter. All
    empty: the base model."""

    alias: str = ""
    policy: str = ""
    adapter: str = ""


AnswerUpdate = AnswerBegun | AnswerDelta | AnswerEnd
"""An answer's stream: one AnswerBegun, any number of AnswerDelta, one AnswerEnd."""


class RunStateChanged(Value):
    state: RunState
    error: Fault | None = None


class RunWaiting(Value):
    """The run waits for what `error` names, or goes on if there is none. `doing`: what was tried."""

    doing: str
    error: Fault | None = None


class StageStarted(Value):
    round: int
    stage: str


class TrialFinished(Value):
    trial: Trial


class PolicyTrained(Value):
    round: int
    policy: PolicyVersion
    kept: int


class RoundFinished(Value):
    round: int
    policy: str


EventKind = RunStateChanged | RunWaiting | StageStarted | TrialFinished | PolicyTrained | RoundFinished


class Event(Value):
    """Something that happened in a run; a watcher continues after it with `cursor`."""

    cursor: str
    time: datetime
    progress: RunProgress
    kind: EventKind


class Budget(Value):
    """Limits at which a run is paused. 0: no limit."""

    trials: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    device_seconds: float = Field(0.0, ge=0)
    wall_seconds: float = Field(0.0, ge=0)


class Quotas(Value):
    """Limits of a tenant. 0: no limit."""

    runs_at_once: int = Field(0, ge=0)
    """Queued and running runs."""
    trials_in_run: int = Field(0, ge=0)
    """Planned trials of a run, with its reruns."""
    device_seconds_a_day: float = Field(0.0, ge=0)
    """For all its runs and reruns, from midnight to midnight (UTC)."""
    highest_priority: int = Field(0, ge=0)
    """`scheduling.priority` of a run."""


class CallerInfo(Value):
    """The caller. `used` is the current use of each of the `quotas`; for a quota per run, that of the active run that
    uses most."""

    name: str
    role: str
    tenant: str = ""
    quotas: Quotas = Quotas()
    used: Quotas = Quotas()


class AuditEntry(Value):
    """One change, made or refused. `caller`: a name, or `runs/{id}` for a change by a run itself (role `run`).
    `outcome`: OK, or the error's reason."""

    name: str
    time: datetime
    caller: str
    role: str
    tenant: str
    action: str
    resource: str
    request_id: str
    outcome: str
    detail: str = ""


class Estimate(Value):
    """A mean over n things with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


class ReportRow(Value):
    key: str
    label: str
    split: str
    accuracy: Estimate


class CurvePoint(Value):
    """One policy on the learning curve. `accuracy`: of its self-edits on the held-out contexts, None if it was not
    scored; `gain`: minus that of the best policy before it, paired by context; `adopted`: whether the run continued
    from it, and if not, `reason`: why."""

    policy: str
    accuracy: Estimate | None = None
    gain: Estimate | None = None
    adopted: bool = True
    reason: str = ""


class Power(Value):
    """The smallest difference of two policies that a comparison on `contexts` held-out contexts, with `samples`
    self-edits each, finds with 80 % probability (two-sided, 5 %). `deviation`: standard deviation over contexts of the
    paired differences; `measured`: whether it comes from recorded trials, and is not assumed."""

    contexts: int
    samples: int
    deviation: float
    detectable: float
    measured: bool


class Cost(Value):
    """Cost of a run, by stage, and per result. None without a result to divide by."""

    stages: dict[str, Usage] = Field(default_factory=dict)
    accepted: int = 0
    device_seconds_per_accepted: float | None = None
    tokens_per_accepted: float | None = None
    device_seconds_per_point: float | None = None
    """Per point (0.01) of gain over no adapter, on held-out contexts if there are any."""
    money: float | None = None
    """By the config's prices, in `currency`."""
    currency: str = ""


class Continual(Value):
    """R[i,j]: accuracy on context j after commit i, row 0 the base model; None: not measured. BWT and forgetting as in
    docs/glossary.md."""

    contexts: tuple[str, ...] = ()
    matrix: tuple[tuple[float | None, ...], ...] = ()
    just_learned: Estimate | None = None
    at_end: Estimate | None = None
    bwt: Estimate | None = None
    forgetting: Estimate | None = None


class RunEstimate(Value):
    """Estimated cost of a run, from the rates of `based_on` recorded trials; seconds are 0 without any."""

    trials: int
    usage: Usage
    wall_seconds: float
    based_on: int
    basis: str
    power: Power | None = None
    """Of comparing two policies on the held-out contexts; None with fewer than two of them, or if none is scored."""


class Difference(Value):
    """One difference of a rerun."""

    field: str
    recorded: str
    rerun: str


class Rerun(Value):
    """A trial made again from its manifest, and the recorded one."""

    trial: Trial
    original: str
    identical: bool = False
    differences: tuple[Difference, ...] = ()


class RunReport(Value):
    """The results of a run. `rl_gain`: self-edits of the last adopted policy minus the first's on held-out contexts,
    paired; `arm_gains`: minus another editor's, by its name. `curve`: all policies, oldest first; empty if none was
    scored. `power`: of `rl_gain`, or of a comparison like it."""

    rows: tuple[ReportRow, ...]
    trial_counts: dict[str, int]
    kept: int
    trial_forgetting: Estimate | None
    policies: tuple[PolicyVersion, ...]
    stage_seconds: dict[str, float]
    rl_gain: Estimate | None
    verdict: str
    usage: Usage
    wall_seconds: float
    cost: Cost = Cost()
    round_costs: dict[int, Cost] = Field(default_factory=dict)
    arm_gains: dict[str, Estimate] = Field(default_factory=dict)
    arm_costs: dict[str, Cost] = Field(default_factory=dict)
    continual: Continual | None = None
    documents: tuple[DocumentReport, ...] = ()
    generated_exam: bool = False
    """Whether models wrote questions that these accuracies are measured on."""
    curve: tuple[CurvePoint, ...] = ()
    power: Power | None = None
