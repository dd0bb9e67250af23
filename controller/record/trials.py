"""Trials in the record. A trial's row is there before its message; its end is one fenced transaction.

States: QUEUED → RUNNING (taken: the token counts up) → SUCCEEDED, REJECTED or FAILED; RUNNING → QUEUED where a worker
gives it back or died; QUEUED or RUNNING → CANCELLED with its run; FAILED or CANCELLED → QUEUED where a run is resumed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, and_, delete, func, or_, select, update

from controller.record import contexts, events
from controller.record.database import insert_new
from controller.record.leases import RunLease, TrialLease, gone, hold
from controller.record.pages import Page, key_of, size_of, token_after
from controller.record.tables import now, policies, rounds, runs, trials
from sealkit.domain import Context
from sealkit.errors import UnknownRun, UnknownTrial
from sealkit.resources import Editor, Fault, Trial, TrialFinished, TrialPhase, TrialState
from sealkit.types import AdapterRef, Policy, Usage, Value, Verdict

_OPEN = (TrialState.QUEUED, TrialState.RUNNING)
_NO_VERDICTS = [column for column in trials.c if column.name not in ("verdicts", "baseline_verdicts")]
_CHUNK = 500
"""Names in one IN list: databases bound the number of parameters of a statement."""


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
    reward: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    baseline_verdicts: tuple[Verdict, ...] = ()
    stage_seconds: dict[str, float]
    usage: Usage = Usage()


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
    usage: Usage


# --- the driver's side ------------------------------------------------------------------------------------------------
def add(connection: Connection, lease: RunLease, plans: Sequence[Plan]) -> list[str]:
    """Writes the rows that are not there yet; the names of those. Raises LeaseLost."""
    hold(connection, lease)
    fixed = {
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
        "usage": Usage().model_dump(),
        "create_time": now(),
    }
    rows = [{"name": plan.name, **plan.model_dump(mode="json", exclude={"trial_id"}), **fixed} for plan in plans]
    return [row["name"] for row in rows if insert_new(connection, trials, row)]


def named(connection: Connection, names: Sequence[str]) -> list[Trial]:
    """Trials by name, without verdicts, in the order of `names`."""
    found: dict[str, Trial] = {}
    for start in range(0, len(names), _CHUNK):
        rows = connection.execute(select(*_NO_VERDICTS).where(trials.c.name.in_(names[start : start + _CHUNK])))
        found.update((row.name, _trial(row)) for row in rows)
    return [found[name] for name in names]


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
    of_run = trials.c.run_id == run_id
    waiting = select(trials.c.name).where(of_run, trials.c.state == TrialState.QUEUED).order_by(trials.c.create_time)
    orphaned = select(trials.c.name).where(of_run, trials.c.state == TrialState.RUNNING, gone(trials.c.worker, dead))
    return list(connection.scalars(waiting)), list(connection.scalars(orphaned))


def put_back(connection: Connection, lease: RunLease, dead: Collection[str]) -> None:
    """Queues the run's trials again that a dead worker had; what it may still find out is late. Raises LeaseLost."""
    hold(connection, lease)
    orphaned = and_(trials.c.run_id == lease.run_id, trials.c.state == TrialState.RUNNING, gone(trials.c.worker, dead))
    connection.execute(
        update(trials).where(orphaned).values(state=TrialState.QUEUED, worker="", token=trials.c.token + 1)
    )


# --- the worker's side ------------------------------------------------------------------------------------------------
def take(
    connection: Connection, name: str, worker_id: str, *, previous: str | None, max_deliveries: int
) -> Taken | None:
    """Takes a trial that waits, or that the message's `previous` consumer left behind; None where there is nothing to
    do: it has ended, another worker has it, or this was one delivery too many and it is FAILED now."""
    free = trials.c.state == TrialState.QUEUED
    if previous is not None:
        free = or_(free, and_(trials.c.state == TrialState.RUNNING, trials.c.worker == previous))
    row = connection.execute(select(trials).where(trials.c.name == name, free).with_for_update()).one_or_none()
    if row is None:
        return None
    lease = TrialLease(name, row.token + 1)
    connection.execute(
        update(trials)
        .where(trials.c.name == name)
        .values(state=TrialState.RUNNING, worker=worker_id, token=lease.token, attempts=row.attempts + 1)
    )
    if row.attempts >= max_deliveries:
        connection.execute(update(trials).where(trials.c.name == name).values(attempts=row.attempts))
        message = f"handed to a worker {row.attempts} times and never brought to its end"
        fault = Fault(code=10, reason="DELIVERIES_EXHAUSTED", message=message)  # ABORTED
        finish(connection, lease, Result(state=TrialState.FAILED, error=fault, stage_seconds=row.stage_seconds))
        return None
    adapter = connection.scalar(select(policies.c.adapter).where(policies.c.name == row.policy))
    return Taken(
        lease=lease,
        plan=_plan(row),
        context=contexts.get(connection, row.run_id, row.context_id),
        policy=Policy(name=row.policy, adapter=AdapterRef.model_validate(adapter) if adapter else None),
        attempts=row.attempts + 1,
        completion=row.completion,
        stage_seconds=row.stage_seconds,
        usage=Usage.model_validate(row.usage),
    )


def save_completion(
    connection: Connection, lease: TrialLease, text: str, stage_seconds: dict[str, float], usage: Usage
) -> bool:
    """Keeps what was sampled, so that a second attempt goes on from it. False where the lease is over."""
    values = {"completion": text, "stage_seconds": stage_seconds, "usage": usage.model_dump()}
    return bool(connection.execute(update(trials).where(_held(lease)).values(**values)).rowcount)


def finish(connection: Connection, lease: TrialLease, result: Result) -> Trial | None:
    """Brings a trial to its end. A late result (another worker has it, or it has ended) changes nothing but the count
    of late results, and None comes back."""
    # The run's row first, as everywhere: two transactions that lock in different orders would wait for each other.
    connection.execute(select(runs.c.run_id).where(runs.c.run_id == lease.run_id).with_for_update())
    values = result.model_dump(mode="json")
    ended = connection.execute(update(trials).where(_held(lease)).values(**values, end_time=now()))
    if not ended.rowcount:
        connection.execute(
            update(trials).where(trials.c.name == lease.name).values(late_results=trials.c.late_results + 1)
        )
        return None
    connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(trials_done=runs.c.trials_done + 1))
    trial = named(connection, [lease.name])[0]
    events.append(connection, lease.run_id, TrialFinished(trial=trial), trial=lease.name)
    return trial


def give_back(connection: Connection, lease: TrialLease, *, counts: bool) -> bool:
    """Queues a taken trial again. `counts`: whether this delivery counts as an attempt. False: the lease is over."""
    values = {"state": TrialState.QUEUED, "worker": "", "token": lease.token + 1}
    attempts = trials.c.attempts if counts else trials.c.attempts - 1
    return bool(connection.execute(update(trials).where(_held(lease)).values(**values, attempts=attempts)).rowcount)


def held_by(connection: Connection, worker_id: str) -> set[TrialLease]:
    """The leases that a worker holds."""
    rows = connection.execute(
        select(trials.c.name, trials.c.token).where(trials.c.state == TrialState.RUNNING, trials.c.worker == worker_id)
    )
    return {TrialLease(row.name, row.token) for row in rows}


# --- with the run -----------------------------------------------------------------------------------------------------
def cancel(connection: Connection, run_id: str) -> None:
    """Ends every trial of a run that has not ended; results that still come are late."""
    unfinished = and_(trials.c.run_id == run_id, trials.c.state.in_(_OPEN))
    values = {"state": TrialState.CANCELLED, "worker": "", "token": trials.c.token + 1, "end_time": now()}
    connection.execute(update(trials).where(unfinished).values(**values))


def reset(connection: Connection, run_id: str) -> None:
    """Queues the failed and cancelled trials of a run again, but for E-steps whose M-step is done.

    The passage-only trial of a group that goes on is struck: its budget is the group's, which may change.
    """
    done = select(rounds.c.round).where(rounds.c.run_id == run_id, rounds.c.next_policy.is_not(None))
    counts = or_(trials.c.phase == TrialPhase.HELD_OUT, trials.c.round.not_in(done))
    again = and_(trials.c.run_id == run_id, trials.c.state.in_([TrialState.FAILED, TrialState.CANCELLED]), counts)
    groups = connection.execute(
        select(trials.c.round, trials.c.phase, trials.c.context_id).where(again, trials.c.editor == Editor.POLICY)
    ).all()
    for group in set(groups):
        connection.execute(
            delete(trials).where(
                trials.c.run_id == run_id,
                trials.c.round == group.round,
                trials.c.phase == group.phase,
                trials.c.context_id == group.context_id,
                trials.c.editor == Editor.PASSAGE_ONLY,
            )
        )
    values = {"state": TrialState.QUEUED, "attempts": 0, "worker": "", "token": trials.c.token + 1}
    connection.execute(update(trials).where(again).values(**values, error=None, end_time=None))


def count_done(run_id: str) -> ScalarSelect[int]:
    """How many trials of a run have ended, as a subquery."""
    return (
        select(func.count())
        .select_from(trials)
        .where(trials.c.run_id == run_id, trials.c.state.not_in(_OPEN))
        .scalar_subquery()
    )


# --- reading ----------------------------------------------------------------------------------------------------------
def get(connection: Connection, name: str) -> Trial:
    """One trial with its verdicts. Raises UnknownTrial."""
    row = connection.execute(select(trials).where(trials.c.name == name)).one_or_none()
    if row is None:
        raise UnknownTrial(f"there is no trial {name}", metadata={"trial": name})
    return _trial(row, verdicts=row.verdicts)


def of_run(connection: Connection, run_id: str) -> list[Trial]:
    """All trials of a run, without verdicts, in the order of their names."""
    query = select(*_NO_VERDICTS).where(trials.c.run_id == run_id).order_by(trials.c.round, trials.c.name)
    return [_trial(row) for row in connection.execute(query)]


def page(connection: Connection, parent: str, size: int, token: str) -> Page[Trial]:
    """Trials of `runs/{id}` or `runs/{id}/rounds/{round}`, in the order of their names. Raises UnknownRun,
    InvalidInput on a bad token."""
    _, run_id, *of_round = parent.split("/")
    if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": f"runs/{run_id}"})
    query = select(*_NO_VERDICTS).where(trials.c.run_id == run_id)
    if of_round:
        query = query.where(trials.c.round == int(of_round[1]))
    if key := key_of(token, int, str):
        later = and_(trials.c.round == key[0], trials.c.name > key[1])
        query = query.where(or_(trials.c.round > key[0], later))
    rows = connection.execute(query.order_by(trials.c.round, trials.c.name).limit(size_of(size) + 1)).all()
    shown = rows[: size_of(size)]
    more = len(rows) > len(shown)
    return Page([_trial(row) for row in shown], token_after([shown[-1].round, shown[-1].name]) if more else "")


def _held(lease: TrialLease) -> Any:
    return and_(trials.c.name == lease.name, trials.c.token == lease.token, trials.c.state == TrialState.RUNNING)


def _plan(row: Row[Any]) -> Plan:
    values = {field: getattr(row, field) for field in Plan.model_fields if field not in ("trial_id", "index")}
    return Plan(**values, trial_id=row.name.rpartition("/")[2], index=row._mapping["index"])


def _trial(row: Row[Any], verdicts: Sequence[Any] = ()) -> Trial:
    taken = {field: row._mapping[field] for field in Trial.model_fields if field not in ("completion", "verdicts")}
    return Trial(**taken, completion=row.completion or "", verdicts=tuple(verdicts))
