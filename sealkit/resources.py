"""The controller's resources as frozen values: returned by the database layer, sent by the service, returned by the
client. What is derived from them is in `sealkit.reports`.

Each has its message in `seal.controller.v1`; `sealkit.rpc.mapping` converts both ways by the names of the fields.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from sealkit.notebook import table
from sealkit.types import (
    AdapterRef,
    AnswerDelta,
    AnswerEnd,
    Divergence,
    ModelInfo,
    Occupancy,
    Retention,
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

    def _repr_html_(self) -> str:
        """The run in a notebook."""
        done = self.progress
        state = f"{self.state.value}: {self.error.message}" if self.error else self.state.value
        rows = (
            ("name", self.display_name),
            ("state", state),
            ("rounds", f"{done.rounds_done} of {done.rounds_total}"),
            ("trials", f"{done.trials_done} of {done.trials_total}"),
        )
        return table(self.name, rows)


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
    """Whether the questions and gold answers that its accuracies are measured on were generated, not given."""
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

    @property
    def gain(self) -> float | None:
        """Accuracy with the adapter minus that without it; None if one was not measured."""
        if self.accuracy is None or self.baseline_accuracy is None:
            return None
        return self.accuracy - self.baseline_accuracy


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


class AnswerDocument(Value):
    """A document of the alias that an answer is about. `digest`: SHA-256 of its bytes; `share`: of the words of the
    question or of the answer, those that are in its passages, rare ones weighing more; in (0, 1]."""

    name: str
    digest: str
    share: float


class AnswerAbout(Value):
    """The documents of the alias that an answer is about, the best first; none: no document has enough of its words."""

    documents: tuple[AnswerDocument, ...] = ()


AnswerUpdate = AnswerBegun | AnswerDelta | AnswerAbout | AnswerEnd
"""An answer's stream: one AnswerBegun, any number of AnswerDelta, one AnswerAbout if asked for, one AnswerEnd."""


class RunStateChanged(Value):
    state: RunState
    error: Fault | None = None


class RunWaiting(Value):
    """The run waits for what `error` names, or goes on if there is none. `doing`: what was tried."""

    doing: str
    error: Fault | None = None


class RoundStage(StrEnum):
    """The stages of a round that trials end in or that have a description of their own. The contract's stage is a text:
    others name themselves, and so may another version's."""

    E_STEP = "E-step"
    M_STEP = "M-step"
    COMPARISON = "comparison"
    COMMIT = "commit"
    LAST_POLICY = "scoring the last policy"


class StageStarted(Value):
    """`stage`: one of `RoundStage`, or another text."""

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


class ReplicaState(StrEnum):
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    OTHER_MODEL = "other_model"
    """It answers and gets no calls: its base model is not the others'."""


class ServiceReplica(Value):
    """A replica of a model service, `generator`, `trainer` or `evaluator`. `occupancy`: None if it is not known: it
    does not answer, or another server samples its texts. `address` and `error`, why it gets no calls: only for admins
    that act for no tenant."""

    service: str
    address: str = ""
    state: ReplicaState
    base_model: ModelInfo | None = None
    occupancy: Occupancy | None = None
    error: Fault | None = None


class RunLoad(Value):
    """A run with trials to do: `running` are with a worker and `queued` wait for one, both with reruns; `planned` are
    not queued yet."""

    run: str
    display_name: str
    state: RunState
    priority: int = 0
    running: int = 0
    queued: int = 0
    planned: int = 0


class Load(Value):
    """How busy the stack is: replicas of the model services, by service and address; runs that are queued or running,
    and others with trials to do, at most 1000, those of the highest priority first."""

    replicas: tuple[ServiceReplica, ...] = ()
    runs: tuple[RunLoad, ...] = ()
