"""Values of `sealkit.resources` to the messages of the controller and back."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from seal.controller.v1 import resources_pb2 as pb2

from sealkit.errors import InvalidInput
from sealkit.resources import (
    Alias,
    AliasChange,
    AuditEntry,
    Budget,
    CallerInfo,
    Event,
    GateState,
    PolicyTrained,
    PolicyVersion,
    Quotas,
    RoundFinished,
    Run,
    RunProgress,
    RunState,
    RunStateChanged,
    StageStarted,
    Trial,
    TrialFinished,
    TrialPhase,
    TrialState,
)
from sealkit.rpc.convert import (
    adapter_ref_from_pb,
    adapter_ref_to_pb,
    divergence_from_pb,
    divergence_to_pb,
    retention_from_pb,
    retention_to_pb,
    usage_from_pb,
    usage_to_pb,
    verdict_from_pb,
    verdict_to_pb,
    word_from_number,
)
from sealkit.rpc.status import fault_from_status, status_of_fault
from sealkit.rpc.struct import struct_from_pb, struct_to_pb

RUN_STATES = {
    RunState.QUEUED: pb2.RUN_STATE_QUEUED,
    RunState.RUNNING: pb2.RUN_STATE_RUNNING,
    RunState.SUCCEEDED: pb2.RUN_STATE_SUCCEEDED,
    RunState.FAILED: pb2.RUN_STATE_FAILED,
    RunState.CANCELLED: pb2.RUN_STATE_CANCELLED,
    RunState.PAUSED: pb2.RUN_STATE_PAUSED,
}
TRIAL_STATES = {
    TrialState.QUEUED: pb2.TRIAL_STATE_QUEUED,
    TrialState.RUNNING: pb2.TRIAL_STATE_RUNNING,
    TrialState.SUCCEEDED: pb2.TRIAL_STATE_SUCCEEDED,
    TrialState.REJECTED: pb2.TRIAL_STATE_REJECTED,
    TrialState.FAILED: pb2.TRIAL_STATE_FAILED,
    TrialState.CANCELLED: pb2.TRIAL_STATE_CANCELLED,
}
TRIAL_PHASES = {
    TrialPhase.E_STEP: pb2.TRIAL_PHASE_E_STEP,
    TrialPhase.HELD_OUT: pb2.TRIAL_PHASE_HELD_OUT,
    TrialPhase.RERUN: pb2.TRIAL_PHASE_RERUN,
}
GATE_STATES = {
    GateState.UNMEASURED: pb2.GATE_STATE_UNMEASURED,
    GateState.PASSED: pb2.GATE_STATE_PASSED,
    GateState.REFUSED: pb2.GATE_STATE_REFUSED,
}


def time_to_pb(time: datetime | None) -> Timestamp | None:
    """A time without a zone is taken for UTC."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def time_from_pb(pb: Timestamp) -> datetime:
    """In UTC, to the microsecond."""
    return pb.ToDatetime(tzinfo=UTC)


def run_progress_to_pb(progress: RunProgress) -> pb2.RunProgress:
    return pb2.RunProgress(**progress.model_dump())


def run_progress_from_pb(pb: pb2.RunProgress) -> RunProgress:
    return RunProgress(**{name: getattr(pb, name) for name in RunProgress.model_fields})


def run_to_pb(run: Run) -> pb2.Run:
    return pb2.Run(
        name=run.name,
        display_name=run.display_name,
        state=RUN_STATES[run.state],
        config=struct_to_pb(run.config, what="config"),
        create_time=time_to_pb(run.create_time),
        start_time=time_to_pb(run.start_time),
        end_time=time_to_pb(run.end_time),
        error=status_of_fault(run.error) if run.error else None,
        progress=run_progress_to_pb(run.progress),
        tenant=run.tenant,
    )


def run_from_pb(pb: pb2.Run) -> Run:
    return Run(
        name=pb.name,
        display_name=pb.display_name,
        state=word_from_number(RUN_STATES, pb.state),
        config=struct_from_pb(pb.config),
        create_time=time_from_pb(pb.create_time),
        start_time=time_from_pb(pb.start_time) if pb.HasField("start_time") else None,
        end_time=time_from_pb(pb.end_time) if pb.HasField("end_time") else None,
        error=fault_from_status(pb.error) if pb.HasField("error") else None,
        progress=run_progress_from_pb(pb.progress),
        tenant=pb.tenant,
    )


def trial_to_pb(trial: Trial) -> pb2.Trial:
    return pb2.Trial(
        name=trial.name,
        state=TRIAL_STATES[trial.state],
        phase=TRIAL_PHASES[trial.phase],
        context_id=trial.context_id,
        editor=trial.editor,
        index=trial.index,
        policy=trial.policy,
        completion=trial.completion,
        answers=trial.answers,
        rejection=trial.rejection,
        adapter=adapter_ref_to_pb(trial.adapter),
        accuracy=trial.accuracy,
        baseline_accuracy=trial.baseline_accuracy,
        forgetting=trial.forgetting,
        reward=trial.reward,
        selected=trial.selected,
        verdicts=[verdict_to_pb(v) for v in trial.verdicts],
        stage_seconds=trial.stage_seconds,
        usage=usage_to_pb(trial.usage),
        attempts=trial.attempts,
        error=status_of_fault(trial.error) if trial.error else None,
        create_time=time_to_pb(trial.create_time),
        end_time=time_to_pb(trial.end_time),
        retention=retention_to_pb(trial.retention) if trial.retention else None,
        divergence=divergence_to_pb(trial.divergence) if trial.divergence else None,
        stopped_early=trial.stopped_early,
        batch_variant_rate=trial.batch_variant_rate,
        stage_usage={stage: usage_to_pb(usage) for stage, usage in trial.stage_usage.items()},
        manifest=struct_to_pb(trial.manifest, what="manifest") if trial.manifest else None,
        rerun_of=trial.rerun_of,
        late_results=trial.late_results,
        round=trial.round,
    )


def trial_from_pb(pb: pb2.Trial) -> Trial:
    return Trial(
        name=pb.name,
        state=word_from_number(TRIAL_STATES, pb.state),
        phase=word_from_number(TRIAL_PHASES, pb.phase),
        context_id=pb.context_id,
        editor=pb.editor,
        index=pb.index,
        policy=pb.policy,
        completion=pb.completion,
        answers=tuple(pb.answers),
        rejection=pb.rejection,
        adapter=adapter_ref_from_pb(pb.adapter),
        accuracy=pb.accuracy if pb.HasField("accuracy") else None,
        baseline_accuracy=pb.baseline_accuracy if pb.HasField("baseline_accuracy") else None,
        forgetting=pb.forgetting if pb.HasField("forgetting") else None,
        reward=pb.reward if pb.HasField("reward") else None,
        selected=pb.selected,
        verdicts=tuple(verdict_from_pb(v) for v in pb.verdicts),
        stage_seconds=dict(pb.stage_seconds),
        usage=usage_from_pb(pb.usage),
        attempts=pb.attempts,
        error=fault_from_status(pb.error) if pb.HasField("error") else None,
        create_time=time_from_pb(pb.create_time),
        end_time=time_from_pb(pb.end_time) if pb.HasField("end_time") else None,
        retention=retention_from_pb(pb.retention) if pb.HasField("retention") else None,
        divergence=divergence_from_pb(pb.divergence) if pb.HasField("divergence") else None,
        stopped_early=pb.stopped_early,
        batch_variant_rate=pb.batch_variant_rate,
        stage_usage={stage: usage_from_pb(usage) for stage, usage in pb.stage_usage.items()},
        manifest=struct_from_pb(pb.manifest),
        rerun_of=pb.rerun_of,
        late_results=pb.late_results,
        round=pb.round,
    )


def policy_version_to_pb(policy: PolicyVersion) -> pb2.PolicyVersion:
    return pb2.PolicyVersion(
        name=policy.name,
        parent=policy.parent,
        run=policy.run,
        version=policy.version,
        round=policy.round,
        adapter=adapter_ref_to_pb(policy.adapter),
        trials=policy.trials,
        forgetting=policy.forgetting,
        held_out_accuracy=policy.held_out_accuracy,
        create_time=time_to_pb(policy.create_time),
        usage=usage_to_pb(policy.usage),
        retention=retention_to_pb(policy.retention) if policy.retention else None,
        divergence=divergence_to_pb(policy.divergence) if policy.divergence else None,
        scores=policy.scores,
        gate=GATE_STATES[policy.gate],
        gate_reason=policy.gate_reason,
    )


def policy_version_from_pb(pb: pb2.PolicyVersion) -> PolicyVersion:
    return PolicyVersion(
        name=pb.name,
        parent=pb.parent,
        run=pb.run,
        version=pb.version,
        round=pb.round if pb.HasField("round") else None,
        adapter=adapter_ref_from_pb(pb.adapter),
        trials=tuple(pb.trials),
        forgetting=pb.forgetting if pb.HasField("forgetting") else None,
        held_out_accuracy=pb.held_out_accuracy if pb.HasField("held_out_accuracy") else None,
        create_time=time_from_pb(pb.create_time),
        usage=usage_from_pb(pb.usage),
        retention=retention_from_pb(pb.retention) if pb.HasField("retention") else None,
        divergence=divergence_from_pb(pb.divergence) if pb.HasField("divergence") else None,
        scores=dict(pb.scores),
        gate=word_from_number(GATE_STATES, pb.gate or pb2.GATE_STATE_UNMEASURED),  # a controller of 0.1 sets none
        gate_reason=pb.gate_reason,
    )


def alias_to_pb(alias: Alias) -> pb2.Alias:
    history = [pb2.AliasChange(policy=c.policy, time=time_to_pb(c.time), reason=c.reason) for c in alias.history]
    return pb2.Alias(name=alias.name, policy=alias.policy, history=history, tenant=alias.tenant)


def alias_from_pb(pb: pb2.Alias) -> Alias:
    history = tuple(AliasChange(policy=c.policy, time=time_from_pb(c.time), reason=c.reason) for c in pb.history)
    return Alias(name=pb.name, policy=pb.policy, history=history, tenant=pb.tenant)


def quotas_to_pb(quotas: Quotas) -> pb2.Quotas:
    return pb2.Quotas(**quotas.model_dump())


def quotas_from_pb(pb: pb2.Quotas) -> Quotas:
    return Quotas(**{name: getattr(pb, name) for name in Quotas.model_fields})


def caller_info_to_pb(caller: CallerInfo) -> pb2.CallerInfo:
    return pb2.CallerInfo(
        name=caller.name,
        role=caller.role,
        tenant=caller.tenant,
        quotas=quotas_to_pb(caller.quotas),
        used=quotas_to_pb(caller.used),
    )


def caller_info_from_pb(pb: pb2.CallerInfo) -> CallerInfo:
    return CallerInfo(
        name=pb.name,
        role=pb.role,
        tenant=pb.tenant,
        quotas=quotas_from_pb(pb.quotas),
        used=quotas_from_pb(pb.used),
    )


def audit_entry_to_pb(entry: AuditEntry) -> pb2.AuditEntry:
    return pb2.AuditEntry(**entry.model_dump(exclude={"time"}), time=time_to_pb(entry.time))


def audit_entry_from_pb(pb: pb2.AuditEntry) -> AuditEntry:
    plain = {name: getattr(pb, name) for name in AuditEntry.model_fields if name != "time"}
    return AuditEntry(**plain, time=time_from_pb(pb.time))


def budget_to_pb(budget: Budget) -> pb2.Budget:
    return pb2.Budget(**budget.model_dump())


def budget_from_pb(pb: pb2.Budget) -> Budget:
    return Budget(**{name: getattr(pb, name) for name in Budget.model_fields})


def event_to_pb(event: Event) -> pb2.Event:
    pb = pb2.Event(cursor=event.cursor, time=time_to_pb(event.time), progress=run_progress_to_pb(event.progress))
    match event.kind:
        case RunStateChanged(state=state, error=error):
            status = status_of_fault(error) if error else None
            pb.run_state_changed.CopyFrom(pb2.RunStateChanged(state=RUN_STATES[state], error=status))
        case StageStarted(round=number, stage=stage):
            pb.stage_started.CopyFrom(pb2.StageStarted(round=number, stage=stage))
        case TrialFinished(trial=trial):
            pb.trial_finished.CopyFrom(pb2.TrialFinished(trial=trial_to_pb(trial)))
        case PolicyTrained(round=number, policy=policy, kept=kept):
            trained = pb2.PolicyTrained(round=number, policy=policy_version_to_pb(policy), kept=kept)
            pb.policy_trained.CopyFrom(trained)
        case RoundFinished(round=number, policy=name):
            pb.round_finished.CopyFrom(pb2.RoundFinished(round=number, policy=name))
    return pb


def event_from_pb(pb: pb2.Event) -> Event:
    return Event(
        cursor=pb.cursor,
        time=time_from_pb(pb.time),
        progress=run_progress_from_pb(pb.progress),
        kind=_kind_from_pb(pb),
    )


def _kind_from_pb(pb: pb2.Event) -> RunStateChanged | StageStarted | TrialFinished | PolicyTrained | RoundFinished:
    match pb.WhichOneof("kind"):
        case "run_state_changed":
            changed = pb.run_state_changed
            error = fault_from_status(changed.error) if changed.HasField("error") else None
            return RunStateChanged(state=word_from_number(RUN_STATES, changed.state), error=error)
        case "stage_started":
            return StageStarted(round=pb.stage_started.round, stage=pb.stage_started.stage)
        case "trial_finished":
            return TrialFinished(trial=trial_from_pb(pb.trial_finished.trial))
        case "policy_trained":
            trained = pb.policy_trained
            policy = policy_version_from_pb(trained.policy)
            return PolicyTrained(round=trained.round, policy=policy, kept=trained.kept)
        case "round_finished":
            return RoundFinished(round=pb.round_finished.round, policy=pb.round_finished.policy)
    raise InvalidInput(f"event {pb.cursor} is of a kind that this version of the suite does not know; update it")
