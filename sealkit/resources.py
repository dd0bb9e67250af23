"""The controller's resources as frozen values: what the record returns, the service sends and the client hands out.

Each has its twin in `seal.controller.v1`; `sealkit.rpc.convert_controller` converts both ways.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from sealkit.types import AdapterRef, Usage, Value, Verdict


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a run in this state stays in it unless someone resumes it."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class TrialState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a trial in this state has come to its end."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


class TrialPhase(StrEnum):
    E_STEP = "e_step"
    HELD_OUT = "held_out"


class Editor(StrEnum):
    """Who wrote a trial's self-edit."""

    POLICY = "policy"
    PASSAGE_ONLY = "passage_only"


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
    """All rounds of one config. `config` is the resolved config, every default filled in."""

    name: str
    display_name: str
    state: RunState
    config: dict[str, Any]
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: Fault | None = None
    progress: RunProgress = RunProgress()


class Trial(Value):
    """One self-edit → adapter → evaluation → reward. Accuracies and forgetting in [0, 1] terms; None: not measured."""

    name: str
    state: TrialState
    phase: TrialPhase
    context_id: str
    editor: Editor
    index: int
    policy: str
    completion: str = ""
    rejection: str = ""
    adapter: AdapterRef | None = None
    accuracy: float | None = None
    baseline_accuracy: float | None = None
    forgetting: float | None = None
    reward: float | None = None
    selected: bool = False
    verdicts: tuple[Verdict, ...] = ()
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    usage: Usage = Usage()
    attempts: int = 0
    error: Fault | None = None
    create_time: datetime
    end_time: datetime | None = None


class PolicyVersion(Value):
    """A version of the policy; `round` is `runs/{run}/rounds/{round}`, empty for a base model."""

    name: str
    parent: str = ""
    round: str = ""
    adapter: AdapterRef | None = None
    trials: tuple[str, ...] = ()
    forgetting: float | None = None
    held_out_accuracy: float | None = None
    create_time: datetime
    usage: Usage = Usage()


class RunStateChanged(Value):
    state: RunState
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


EventKind = RunStateChanged | StageStarted | TrialFinished | PolicyTrained | RoundFinished


class Event(Value):
    """Something that happened in a run; `cursor` is where a watcher takes up after it."""

    cursor: str
    time: datetime
    progress: RunProgress
    kind: EventKind


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


class RunReport(Value):
    """What a run found. `rl_gain`: last policy's self-edits minus the first's on held-out contexts, paired."""

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
