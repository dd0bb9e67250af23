"""Trials in the record. A trial's row is there before its message; its end is one fenced transaction.

Its states, and the moves between them, are in `states`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, Row, ScalarSelect, Update, and_, bindparam, delete, func, or_, select, update

from controller.record import budgets, events, quotas, states, tables
from controller.record.database import insert_new
from controller.record.leases import HEAD, HEAD_LOCKED, RunLease, TrialLease, gone, hold
from controller.record.pages import Page, key_of, size_of, token_after
from controller.record.reach import Reach
from controller.record.tables import now, policies, rounds, runs, trials
from sealkit.domain import Context
from sealkit.errors import UnknownRun, UnknownTrial
from sealkit.resources import Editor, Fault, RunState, Trial, TrialFinished, TrialPhase, TrialState
from sealkit.types import AdapterRef, Divergence, Policy, Retention, Usage, Value, Verdict

_OPEN = states.CANCEL_TRIAL.sources
_OWN = trials.c.phase != TrialPhase.REPLAY
"""What belongs to its run: replays count for nothing."""
_NO_VERDICTS = [column for column in trials.c if column.name not in ("verdicts", "baseline_verdicts", "manifest")]
_CHUNK = 500
"""Names in one IN list: databases bound the number of parameters of a statement."""

# What is asked for every trial is put together once: building a statement costs more than SQLite takes to answer it.
_RUNNING = trials.c.state == TrialState.RUNNING
_HELD = and_(trials.c.name == bindparam("held_name"), trials.c.token == bindparam("held_token"), _RUNNING)
_NAMED = trials.c.name == bindparam("trial")
_OF_TRIAL = and_(tables.contexts.c.run_id == trials.c.run_id, tables.contexts.c.context_id == trials.c.context_id)
_FREE = (
    select(trials, tables.contexts.c.split, tables.contexts.c.payload, policies.c.adapter.label("policy_adapter"))
    .join_from(trials, tables.contexts, _OF_TRIAL)
    .outerjoin(policies, policies.c.name == trials.c.policy)
    .where(_NAMED, or_(trials.c.state == TrialState.QUEUED, and_(_RUNNING, trials.c.worker == bindparam("previous"))))
    .with_for_update(of=trials)
)
_WRITE = update(trials).where(_NAMED)
_SAVE = update(trials).where(_HELD)
_END = _SAVE.returning(*_NO_VERDICTS)
_LATE = _WRITE.values(late_results=trials.c.late_results + 1)
_LOCK = select(runs.c.tenant).where(runs.c.run_id == bindparam("run")).with_for_update()
_HELD_BY = select(trials.c.name, trials.c.token).where(_RUNNING, trials.c.worker == bindparam("by"))


class Plan(Value):
    """A trial to make. `target_characters`: what its spec is to train on in all, where that is given."""

    run_id: str
    round: int
    trial_id: str
    phase: TrialPhase
    editor: str
    context_id: str
    index: int
    policy: str
    target_characters: int | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"runs/{self.run_id}/rounds/{self.round}/trials/{self.trial_id}"


class Result(Value):
    """How a trial ended; also what a failed one found out before it failed."""

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
    flip_rate: float = 0.0
    reward: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    baseline_verdicts: tuple[Verdict, ...] = ()
    stage_seconds: dict[str, float]
    stage_usage: dict[str, Usage] = Field(default_factory=dict)
    usage: Usage = Usage()
    manifest: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """A trial that a worker may bring to its end, with what it is about and the policy that it is tried under."""

    lease: TrialLease
    plan: Plan
    context: Context
    policy: Policy
    attempts: int
    completion: str | None
    stage_seconds: dict[str, float]
    stage_usage: dict[str, Usage]
    manifest: dict[str, Any]
    """Of a replay: that of the trial to make again. Empty otherwise."""


class Untaken(Enum):
    """Why a delivered trial was not taken."""

    SETTLED = "it has ended, or another worker has it"
    HELD_BACK = "its run is paused, or has no budget left; it stays queued, and its message is put back on resume"
    DEAD_LETTER = "this was one delivery too many; it is FAILED now"


# --- the driver's side ------------------------------------------------------------------------------------------------
def add(connection: Connection, lease: RunLease, plans: Sequence[Plan]) -> list[str]:
    """Writes the rows that are not there yet; the names of those. Raises LeaseLost."""
    run = hold(connection, lease)
    fixed = blank()
    rows = [{"name": plan.name, **plan.model_dump(mode="json", exclude={"trial_id"}), **fixed} for plan in plans]
    inserted = set(insert_new(connection, trials, *rows))
    new = [plan.name for plan in plans if plan.name in inserted]
    budgets.settle(connection, run, more=bool(new))
    return new


def blank() -> dict[str, Any]:
    """What stands in the row of a trial that nobody has taken yet, beside what it is to be."""
    return {
        "state": TrialState.QUEUED,
        "token": 0,
        "worker": "",
        "attempts": 0,
        "late_results": 0,
        "rejection": "",
        "selected": False,
        "verdicts": [],
        "baseline_verdicts": [],
        "stage_seconds": {},
        "stage_usage": {},
        "manifest": {},
        "usage": Usage().model_dump(),
        "create_time": now(),
    }


def named(connection: Connection, names: Sequence[str]) -> list[Trial]:
    """Trials by name, without verdicts, in the order of `names`."""
    found: dict[str, Trial] = {}
    for start in range(0, len(names), _CHUNK):
        rows = connection.execute(select(*_NO_VERDICTS).where(trials.c.name.in_(names[start : start + _CHUNK])))
        found.update((row.name, _trial(row)) for row in rows)
    return [found[name] for name in names]


def ended(connection: Connection, names: Sequence[str]) -> list[str]:
    """Which of these trials have ended."""
    found: list[str] = []
    for start in range(0, len(names), _CHUNK):
        these = trials.c.name.in_(names[start : start + _CHUNK])
        found += connection.scalars(select(trials.c.name).where(these, trials.c.state.not_in(_OPEN)))
    return found


def mean_trained_characters(connection: Connection, names: Sequence[str]) -> int | None:
    """What the succeeded ones among these trials trained on, on average; None where none succeeded."""
    mean = connection.scalar(
        select(func.avg(trials.c.trained_characters)).where(
            trials.c.name.in_(names), trials.c.state == TrialState.SUCCEEDED
        )
    )
    return None if mean is None else round(mean)


def paired_verdicts(connection: Connection, name: str) -> tuple[tuple[Verdict, ...], tuple[Verdict, ...]]:
    """A trial's verdicts and its baseline's, in the order of the queries."""
    row = connection.execute(select(trials.c.verdicts, trials.c.baseline_verdicts).where(trials.c.name == name)).one()
    return tuple(map(Verdict.model_validate, row.verdicts)), tuple(map(Verdict.model_validate, row.baseline_verdicts))


def choose(connection: Connection, lease: RunLease, round_index: int, kept: Sequence[str]) -> None:
    """Marks exactly these trials of a round as selected. Raises LeaseLost."""
    hold(connection, lease)
    of_round = and_(trials.c.run_id == lease.run_id, trials.c.round == round_index)
    connection.execute(update(trials).where(of_round, trials.c.selected).values(selected=False))
    for start in range(0, len(kept), _CHUNK):
        names = kept[start : start + _CHUNK]
        connection.execute(update(trials).where(trials.c.name.in_(names)).values(selected=True))


def chosen(connection: Connection, run_id: str, *, from_round: int, to_round: int) -> list[Trial]:
    """The selected trials of some rounds, both ends included, in the order of their names."""
    rows = connection.execute(
        select(*_NO_VERDICTS)
        .where(trials.c.run_id == run_id, trials.c.selected, trials.c.round.between(from_round, to_round))
        .order_by(trials.c.round, trials.c.name)
    )
    return [_trial(row) for row in rows]


def unfinished(connection: Connection, run_id: str, dead: Collection[str]) -> tuple[list[str], list[str]]:
    """Names of the run's trials that wait for a worker, and of those that a dead worker had."""
    of_run = and_(trials.c.run_id == run_id, _OWN)
    waiting = select(trials.c.name).where(of_run, trials.c.state == TrialState.QUEUED).order_by(trials.c.create_time)
    orphaned = select(trials.c.name).where(of_run, trials.c.state == TrialState.RUNNING, gone(trials.c.worker, dead))
    return list(connection.scalars(waiting)), list(connection.scalars(orphaned))


def put_back(connection: Connection, lease: RunLease, dead: Collection[str]) -> None:
    """Queues the run's trials again that a dead worker had; what it may still find out is late. Raises LeaseLost."""
    hold(connection, lease)
    orphaned = and_(trials.c.run_id == lease.run_id, _OWN, gone(trials.c.worker, dead))
    connection.execute(_give_back(orphaned))


def orphaned_of_paused(connection: Connection, dead: Collection[str]) -> bool:
    """Whether a dead worker had a trial of a paused run."""
    running = trials.c.state == TrialState.RUNNING
    return connection.scalar(select(trials.c.name).where(running, _of_paused(dead)).limit(1)) is not None


def put_back_of_paused(connection: Connection, dead: Collection[str]) -> None:
    """Queues the trials of paused runs again that a dead worker had: nobody drives those runs."""
    connection.execute(_give_back(_of_paused(dead)))


def _of_paused(dead: Collection[str]) -> Any:
    paused = select(runs.c.run_id).where(runs.c.state == RunState.PAUSED)
    return and_(trials.c.run_id.in_(paused), gone(trials.c.worker, dead))


# --- the worker's side ------------------------------------------------------------------------------------------------
def take(
    connection: Connection, name: str, worker_id: str, *, previous: str | None, max_deliveries: int
) -> Taken | Untaken:
    """Takes a trial that waits, or that the message's `previous` consumer left behind."""
    room = _room(connection, name.split("/")[1])
    row = connection.execute(_FREE, {"trial": name, "previous": previous}).one_or_none()
    if row is None:
        return Untaken.SETTLED
    if not room and row.phase != TrialPhase.REPLAY:
        connection.execute(_give_back(trials.c.name == name))
        return Untaken.HELD_BACK
    lease = TrialLease(name, row.token + 1)
    taken = {"state": states.TAKE_TRIAL.target, "worker": worker_id, "token": lease.token}
    dead_letter = row.attempts >= max_deliveries
    attempts = row.attempts if dead_letter else row.attempts + 1
    connection.execute(_WRITE, {**taken, "attempts": attempts, "trial": name})
    if dead_letter:
        message = f"handed to a worker {row.attempts} times and never brought to its end"
        fault = Fault(code=10, reason="DELIVERIES_EXHAUSTED", message=message)  # ABORTED
        spent = {"stage_seconds": row.stage_seconds, "stage_usage": row.stage_usage, "usage": row.usage}
        finish(connection, lease, Result(state=TrialState.FAILED, error=fault, **spent))
        return Untaken.DEAD_LETTER
    adapter = AdapterRef.model_validate(row.policy_adapter) if row.policy_adapter else None
    return Taken(
        lease=lease,
        plan=_plan(row),
        context=Context(context_id=row.context_id, split=row.split, payload=row.payload),
        policy=Policy(name=row.policy, adapter=adapter),
        attempts=attempts,
        completion=row.completion,
        stage_seconds=row.stage_seconds,
        stage_usage={stage: Usage.model_validate(usage) for stage, usage in row.stage_usage.items()},
        manifest=row.manifest,
    )


def save_completion(
    connection: Connection, lease: TrialLease, text: str, stage_seconds: dict[str, float], stage_usage: dict[str, Usage]
) -> bool:
    """Keeps what was sampled, so that a second attempt goes on from it. False where the lease is over."""
    values = {
        "completion": text,
        "stage_seconds": stage_seconds,
        "stage_usage": {stage: usage.model_dump() for stage, usage in stage_usage.items()},
        "usage": sum(stage_usage.values(), Usage()).model_dump(),
    }
    return bool(connection.execute(_SAVE, {**values, **_holding(lease)}).rowcount)


def finish(connection: Connection, lease: TrialLease, result: Result) -> Trial | None:
    """Brings a trial to its end. A late result (another worker has it, or it has ended) changes nothing but the count
    of late results, and None comes back."""
    # The run's row first, as everywhere: two transactions that lock in different orders would wait for each other.
    tenant = connection.execute(_LOCK, {"run": lease.run_id}).scalar_one()
    values = result.model_dump(mode="json")
    row = connection.execute(_END, {**values, "end_time": now(), **_holding(lease)}).one_or_none()
    if row is None:
        connection.execute(_LATE, {"trial": lease.name})
        return None
    trial = _trial(row)
    quotas.spend(connection, tenant, result.usage.device_seconds)
    if trial.phase is TrialPhase.REPLAY:
        return trial
    tokens, seconds = budgets.tokens(result.usage), result.usage.device_seconds
    run = events.append_trial(
        connection, TrialFinished(trial=trial), run_id=lease.run_id, tokens=tokens, seconds=seconds
    )
    if budgets.over(connection, run):
        budgets.settle(connection, run, more=budgets.wants_more(connection, lease.run_id))
    return trial


def give_back(connection: Connection, lease: TrialLease, *, counts: bool) -> bool:
    """Queues a taken trial again. `counts`: whether this delivery counts as an attempt. False: the lease is over."""
    attempts = trials.c.attempts if counts else trials.c.attempts - 1
    return bool(connection.execute(_give_back(_HELD).values(attempts=attempts), _holding(lease)).rowcount)


def held_by(connection: Connection, worker_id: str) -> set[TrialLease]:
    """The leases that a worker holds."""
    rows = connection.execute(_HELD_BY, {"by": worker_id})
    return {TrialLease(row.name, row.token) for row in rows}


# --- with the run -----------------------------------------------------------------------------------------------------
def cancel(connection: Connection, run_id: str) -> None:
    """Ends every trial of a run that has not ended; results that still come are late."""
    unfinished = and_(trials.c.run_id == run_id, _OWN, trials.c.state.in_(_OPEN))
    values = {"state": states.CANCEL_TRIAL.target, "worker": "", "token": trials.c.token + 1, "end_time": now()}
    connection.execute(update(trials).where(unfinished).values(**values))


def retryable(connection: Connection, run_id: str, names: Collection[str] | None = None) -> list[str]:
    """The failed and cancelled trials of a run that can still count: not those of E-steps whose M-step is done. With
    `names`, of the failed ones only those. Raises UnknownTrial where the run has no such trial."""
    done = select(rounds.c.round).where(rounds.c.run_id == run_id, rounds.c.next_policy.is_not(None))
    counts = or_(trials.c.phase == TrialPhase.HELD_OUT, trials.c.round.not_in(done))
    again = and_(trials.c.run_id == run_id, _OWN, trials.c.state.in_(states.RETRY_TRIAL.sources), counts)
    found = connection.execute(select(trials.c.name, trials.c.state).where(again)).all()
    if names is None:
        return [row.name for row in found]
    for name in names:
        if connection.scalar(select(trials.c.name).where(trials.c.name == name, trials.c.run_id == run_id)) is None:
            raise UnknownTrial(f"runs/{run_id} has no trial {name}", metadata={"trial": name})
    return [row.name for row in found if row.name in set(names) or row.state == TrialState.CANCELLED]


def reset(connection: Connection, run_id: str, names: Sequence[str]) -> None:
    """Queues these of a run's trials again, and takes what they had spent off its count: they bring it along.

    The passage-only trial of a group that goes on is struck: its budget is the group's, which may change.
    """
    back = {"state": states.RETRY_TRIAL.target, "attempts": 0, "worker": "", "error": None, "end_time": None}
    values = {**back, "token": trials.c.token + 1}
    for start in range(0, len(names), _CHUNK):
        these = trials.c.name.in_(names[start : start + _CHUNK])
        rows = connection.execute(select(*_NO_VERDICTS).where(these)).all()
        connection.execute(update(trials).where(these).values(**values))
        spent = sum((Usage.model_validate(row.usage) for row in rows if row.state == TrialState.FAILED), Usage())
        counted = update(runs).where(runs.c.run_id == run_id).values(**budgets.less_spent(spent))
        tenant = connection.execute(counted.returning(runs.c.tenant)).scalar_one()
        quotas.spend(connection, tenant, -spent.device_seconds)
        groups = {(row.round, row.phase, row.context_id) for row in rows if row.editor != Editor.PASSAGE_ONLY}
        for number, phase, context_id in groups:
            of_group = {"run_id": run_id, "round": number, "phase": phase, "context_id": context_id}
            connection.execute(delete(trials).filter_by(**of_group, editor=Editor.PASSAGE_ONLY))


def count_done(run_id: str) -> ScalarSelect[int]:
    """How many trials of a run have ended, as a subquery."""
    return (
        select(func.count())
        .select_from(trials)
        .where(trials.c.run_id == run_id, _OWN, trials.c.state.not_in(_OPEN))
        .scalar_subquery()
    )


# --- reading ----------------------------------------------------------------------------------------------------------
def get(connection: Connection, reach: Reach, name: str) -> Trial:
    """One trial with its verdicts. Raises UnknownTrial."""
    query = select(trials).where(trials.c.name == name, reach.of_run(trials.c.run_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownTrial(f"there is no trial {name}", metadata={"trial": name})
    return _trial(row, verdicts=row.verdicts, manifest=row.manifest)


def of_run(connection: Connection, run_id: str) -> list[Trial]:
    """All trials of a run but replays, without verdicts, in the order of their names."""
    query = select(*_NO_VERDICTS).where(trials.c.run_id == run_id, _OWN).order_by(trials.c.round, trials.c.name)
    return [_trial(row) for row in connection.execute(query)]


def page(
    connection: Connection, reach: Reach, parent: str, size: int, token: str, *, state: TrialState | None = None
) -> Page[Trial]:
    """Trials of `runs/{id}` or `runs/{id}/rounds/{round}`, all or those in one state, in the order of their names.
    Raises UnknownRun, InvalidInput on a bad token."""
    _, run_id, *of_round = parent.split("/")
    if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id, reach.runs)) is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": f"runs/{run_id}"})
    query = select(*_NO_VERDICTS).where(trials.c.run_id == run_id)
    if state is not None:
        query = query.where(trials.c.state == state)
    if of_round:
        query = query.where(trials.c.round == int(of_round[1]))
    if key := key_of(token, int, str):
        later = and_(trials.c.round == key[0], trials.c.name > key[1])
        query = query.where(or_(trials.c.round > key[0], later))
    rows = connection.execute(query.order_by(trials.c.round, trials.c.name).limit(size_of(size) + 1)).all()
    shown = rows[: size_of(size)]
    more = len(rows) > len(shown)
    return Page([_trial(row) for row in shown], token_after([shown[-1].round, shown[-1].name]) if more else "")


def _room(connection: Connection, run_id: str) -> bool:
    """Whether one more trial of the run may start. With a limit on trials the run's row is locked, so that two workers
    never start the last one both."""
    row = connection.execute(HEAD, {"run": run_id}).one()
    if budgets.in_force(row).trials:
        row = connection.execute(HEAD_LOCKED, {"run": run_id}).one()
    return budgets.room(connection, row)


def _give_back(which: Any) -> Update:
    """Queues those of these trials again that a worker has; what it may still find out is late."""
    had = and_(which, trials.c.state.in_(states.GIVE_BACK_TRIAL.sources))
    back = {"state": states.GIVE_BACK_TRIAL.target, "worker": "", "token": trials.c.token + 1}
    return update(trials).where(had).values(**back)


def _holding(lease: TrialLease) -> dict[str, Any]:
    return {"held_name": lease.name, "held_token": lease.token}


def _plan(row: Row[Any]) -> Plan:
    values = {field: getattr(row, field) for field in Plan.model_fields if field not in ("trial_id", "index")}
    return Plan(**values, trial_id=row.name.rpartition("/")[2], index=row._mapping["index"])


def _trial(row: Row[Any], verdicts: Sequence[Any] = (), manifest: Mapping[str, Any] | None = None) -> Trial:
    own = ("completion", "verdicts", "manifest")
    taken = {field: row._mapping[field] for field in Trial.model_fields if field not in own}
    return Trial(**taken, completion=row.completion or "", verdicts=tuple(verdicts), manifest=dict(manifest or {}))
