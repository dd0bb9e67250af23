"""A worker's attempt at a trial: taken under a lease, saved, finished or given back. Every write is fenced by the
lease's token, so a trial may be delivered twice but takes effect once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, Row, and_, bindparam, or_, select, update

from controller.db import budgets, events, quotas, states, tables
from controller.db.contexts import context_of
from controller.db.leases import HEAD, HEAD_LOCKED, TrialLease
from controller.db.manifest import Manifest, read_manifest
from controller.db.tables import now, policies, runs, trials
from controller.db.trials import NO_VERDICTS, Plan, from_row, queue_again
from sealkit.domains.base import Context
from sealkit.errors import DeliveriesExhausted, NotReproducible
from sealkit.faults import fault_of
from sealkit.names import id_of, run_id_of
from sealkit.resources import Fault, Trial, TrialFinished, TrialPhase, TrialState
from sealkit.types import AdapterRef, Divergence, Policy, Retention, Usage, Value, Verdict

# Statements that run for every trial are built once: building one costs more than SQLite needs to execute it.
_RUNNING = trials.c.state == TrialState.RUNNING
_HELD = and_(trials.c.name == bindparam("held_name"), trials.c.token == bindparam("held_token"), _RUNNING)
_NAMED = trials.c.name == bindparam("trial")
_OF_TRIAL = and_(tables.contexts.c.run_id == trials.c.run_id, tables.contexts.c.context_id == trials.c.context_id)
_OF_CONTEXT = [tables.contexts.c[name] for name in Context.model_fields if name != "context_id"]
_FREE = (
    select(trials, *_OF_CONTEXT, policies.c.adapter.label("policy_adapter"))
    .join_from(trials, tables.contexts, _OF_TRIAL)
    .outerjoin(policies, policies.c.name == trials.c.policy)
    .where(_NAMED, or_(trials.c.state == TrialState.QUEUED, and_(_RUNNING, trials.c.worker == bindparam("previous"))))
    .with_for_update(of=trials)
)
_WRITE = update(trials).where(_NAMED)
_SAVE = update(trials).where(_HELD)
_END = _SAVE.returning(*NO_VERDICTS)
_LATE = _WRITE.values(late_results=trials.c.late_results + 1)
_LOCK = select(runs.c.tenant).where(runs.c.run_id == bindparam("run")).with_for_update()
_HELD_BY = select(trials.c.run_id, trials.c.name, trials.c.token).where(_RUNNING, trials.c.worker == bindparam("by"))


class Spent(Value):
    """Usage of all attempts at a trial so far, by stage."""

    stage_seconds: dict[str, float] = Field(default_factory=dict)
    stage_usage: dict[str, Usage] = Field(default_factory=dict)

    @classmethod
    def of_row(cls, row: Row[Any]) -> Spent:
        """From the row of a trial."""
        return cls.from_stored({"stage_seconds": row.stage_seconds, "stage_usage": row.stage_usage})

    def columns(self) -> dict[str, Any]:
        """As columns of the trial's row."""
        usage = sum(self.stage_usage.values(), Usage())
        return {**self.model_dump(mode="json"), "usage": usage.model_dump(mode="json")}


class Sampled(Value):
    """The texts that were sampled for a trial, stored at once so that a second attempt continues from them. The field
    names are those of the columns; `teacher_answers` None: not sampled, or there is no teacher."""

    completion: str
    reasoning: str = ""
    teacher_answers: tuple[str, ...] | None = None
    teacher_reasoning: tuple[str, ...] = ()

    @classmethod
    def of_row(cls, row: Row[Any]) -> Sampled | None:
        """From the row of a trial; None if nothing was sampled."""
        if row.completion is None:
            return None
        return cls.from_stored({name: row._mapping[name] for name in cls.model_fields})


class Result(Value):
    """How a trial ended; for a failed one also what it measured before."""

    state: TrialState
    rejection: str = ""
    error: Fault | None = None
    adapter: AdapterRef | None = None
    trained_characters: int | None = None
    accuracy: float | None = None
    baseline_accuracy: float | None = None
    forgetting: float | None = None
    retention: Retention | None = None
    divergence: Divergence | None = None
    stopped_early: bool = False
    batch_variant_rate: float = 0.0
    generated_exam: bool = False
    reward: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    baseline_verdicts: tuple[Verdict, ...] = ()
    spent: Spent = Spent()
    manifest: Manifest | None = None

    def columns(self) -> dict[str, Any]:
        """As columns of the trial's row."""
        found = self.model_dump(mode="json", exclude={"spent"})
        return {**found, **self.spent.columns(), "manifest": found["manifest"] or {}}


@dataclass(frozen=True, slots=True)
class Taken:
    """A trial that a worker may execute, with its context and policy."""

    lease: TrialLease
    plan: Plan
    context: Context
    policy: Policy
    attempts: int
    sampled: Sampled | None
    spent: Spent
    manifest: Manifest | None
    """For a rerun, the manifest of the original trial; else None."""


class Untaken(Enum):
    """Why a delivered trial was not taken."""

    SETTLED = "it has ended, or another worker has it"
    HELD_BACK = "its run is paused, or has no budget left; it stays queued, and its message is put back on resume"
    DEAD_LETTER = "it was delivered too often; it is FAILED now"
    UNREADABLE = "a rerun of a manifest that this version cannot read; it is FAILED now"


def take(
    connection: Connection, name: str, worker_id: str, *, previous: str | None, max_deliveries: int
) -> Taken | Untaken:
    """Takes a queued trial, or a running one of the message's `previous` consumer."""
    run_id = run_id_of(name)
    may_start = _may_start(connection, run_id)
    row = connection.execute(_FREE, {"trial": name, "previous": previous}).one_or_none()
    if row is None:
        return Untaken.SETTLED
    if not may_start and row.phase != TrialPhase.RERUN:
        connection.execute(queue_again(trials.c.name == name))
        return Untaken.HELD_BACK
    lease = TrialLease(run_id, name, row.token + 1)
    taken = {"state": states.TAKE_TRIAL.target, "worker": worker_id, "token": lease.token}
    dead_letter = row.attempts >= max_deliveries
    attempts = row.attempts if dead_letter else row.attempts + 1
    connection.execute(_WRITE, {**taken, "attempts": attempts, "trial": name})
    spent = Spent.of_row(row)
    if dead_letter:
        error = DeliveriesExhausted(f"taken by workers {row.attempts} times, and never finished")
        finish(connection, lease, Result(state=TrialState.FAILED, error=fault_of(error), spent=spent))
        return Untaken.DEAD_LETTER
    try:
        manifest = read_manifest(row.rerun_of, row.manifest) if row.phase == TrialPhase.RERUN else None
    except NotReproducible as unreadable:
        finish(connection, lease, Result(state=TrialState.FAILED, error=fault_of(unreadable), spent=spent))
        return Untaken.UNREADABLE
    adapter = AdapterRef.from_stored(row.policy_adapter) if row.policy_adapter else None
    return Taken(
        lease=lease,
        plan=_plan(row),
        context=context_of(row),
        policy=Policy(name=row.policy, adapter=adapter),
        attempts=attempts,
        sampled=Sampled.of_row(row),
        spent=spent,
        manifest=manifest,
    )


def save_sampled(connection: Connection, lease: TrialLease, sampled: Sampled, spent: Spent) -> bool:
    """Stores what was sampled so far, and its usage. False: the lease was lost."""
    values = {**sampled.model_dump(mode="json"), **spent.columns(), **_holding(lease)}
    return bool(connection.execute(_SAVE, values).rowcount)


def finish(connection: Connection, lease: TrialLease, result: Result) -> Trial | None:
    """Ends a trial. A late result (another worker has the trial, or it has ended) only increments the count of late
    results, and returns None."""
    # The run's row is locked first, as everywhere: transactions with different orders could deadlock.
    tenant = connection.execute(_LOCK, {"run": lease.run_id}).scalar_one()
    row = connection.execute(_END, {**result.columns(), "end_time": now(), **_holding(lease)}).one_or_none()
    if row is None:
        connection.execute(_LATE, {"trial": lease.name})
        return None
    trial = from_row(row)
    quotas.spend(connection, tenant, trial.usage.device_seconds)
    if trial.phase is TrialPhase.RERUN:
        return trial
    run = events.append_trial(connection, TrialFinished(trial=trial), run_id=lease.run_id)
    if budgets.over(connection, run):
        budgets.settle(connection, run, more=budgets.wants_more(connection, lease.run_id))
    return trial


def give_back(connection: Connection, lease: TrialLease, *, counts: bool) -> bool:
    """Queues a taken trial again. `counts`: whether this delivery counts as an attempt. False: the lease was lost."""
    attempts = trials.c.attempts if counts else trials.c.attempts - 1
    return bool(connection.execute(queue_again(_HELD).values(attempts=attempts), _holding(lease)).rowcount)


def held_by(connection: Connection, worker_id: str) -> set[TrialLease]:
    """The leases that a worker holds."""
    rows = connection.execute(_HELD_BY, {"by": worker_id})
    return {TrialLease(row.run_id, row.name, row.token) for row in rows}


def _may_start(connection: Connection, run_id: str) -> bool:
    """Whether one more trial of the run may start. With a limit on trials the run's row is locked, so that two workers
    cannot both start the last one."""
    row = connection.execute(HEAD, {"run": run_id}).one()
    if budgets.in_force(row).trials:
        row = connection.execute(HEAD_LOCKED, {"run": run_id}).one()
    return budgets.may_start(connection, row)


def _holding(lease: TrialLease) -> dict[str, Any]:
    return {"held_name": lease.name, "held_token": lease.token}


def _plan(row: Row[Any]) -> Plan:
    values = {field: getattr(row, field) for field in Plan.model_fields if field not in ("trial_id", "index")}
    return Plan(**values, trial_id=id_of(row.name), index=row._mapping["index"])
