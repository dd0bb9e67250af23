"""Trials in the database: plan, select, queue again, read. A trial's row is written before its message is queued; its
end is one fenced transaction, in `attempts`. States and transitions are in `states`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, Update, and_, delete, func, or_, select, update

from controller.db import budgets, quotas, states
from controller.db.access import AccessScope
from controller.db.database import insert_new
from controller.db.leases import RunLease, hold, unheld
from controller.db.pages import Page, key_of, size_of, token_after
from controller.db.tables import now, policies, rounds, runs, trials
from sealkit.errors import UnknownRun, UnknownTrial
from sealkit.names import id_of, parent_of_trials, run_id_of, run_name, trial_name
from sealkit.resources import Editor, GateState, RunState, Trial, TrialPhase, TrialState
from sealkit.types import Usage, Value, Verdict

_OPEN = states.CANCEL_TRIAL.sources
_OWN = trials.c.phase != TrialPhase.RERUN
"""The condition for a run's own trials, without reruns."""
NO_VERDICTS = [column for column in trials.c if column.name not in ("verdicts", "baseline_verdicts", "manifest")]
"""A trial's row without the long columns."""
_CHUNK = 500
"""Names in one IN list: databases limit the number of parameters of a statement."""


class Plan(Value):
    """A trial to execute. `target_characters`: the total amount of text that its spec should train on, if set."""

    run_id: str
    round: int
    trial_id: str
    phase: TrialPhase
    editor: str
    context_id: str
    index: int
    policy: str
    target_characters: int | None = None

    @classmethod
    def of(cls, trial: Trial) -> Plan:
        """The fields of a trial's plan that its seeds derive from."""
        return cls(
            run_id=run_id_of(trial.name),
            round=trial.round,
            trial_id=id_of(trial.name),
            phase=trial.phase,
            editor=trial.editor,
            context_id=trial.context_id,
            index=trial.index,
            policy=trial.policy,
        )

    @property
    def name(self) -> str:
        """Resource name."""
        return trial_name(self.run_id, self.round, self.trial_id)


# --- the driver's side ------------------------------------------------------------------------------------------------
def add(connection: Connection, lease: RunLease, plans: Sequence[Plan]) -> list[str]:
    """Inserts the rows that do not exist yet; returns their names. Raises LeaseLost."""
    run = hold(connection, lease)
    fixed = blank()
    rows = [{"name": plan.name, **plan.model_dump(mode="json", exclude={"trial_id"}), **fixed} for plan in plans]
    inserted = set(insert_new(connection, trials, *rows))
    new = [plan.name for plan in plans if plan.name in inserted]
    budgets.settle(connection, run, more=bool(new))
    return new


def blank() -> dict[str, Any]:
    """The columns of a new trial, besides its plan."""
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
        rows = connection.execute(select(*NO_VERDICTS).where(trials.c.name.in_(names[start : start + _CHUNK])))
        found.update((row.name, from_row(row)) for row in rows)
    return [found[name] for name in names]


def existing(connection: Connection, names: Sequence[str]) -> list[Trial]:
    """Those of these trials that were not deleted, in the order of `names`."""
    found: set[str] = set()
    for start in range(0, len(names), _CHUNK):
        these = trials.c.name.in_(names[start : start + _CHUNK])
        found.update(connection.scalars(select(trials.c.name).where(these)))
    return named(connection, [name for name in names if name in found])


def ended(connection: Connection, names: Sequence[str]) -> list[str]:
    """Which of these trials have ended."""
    found: list[str] = []
    for start in range(0, len(names), _CHUNK):
        these = trials.c.name.in_(names[start : start + _CHUNK])
        found += connection.scalars(select(trials.c.name).where(these, trials.c.state.not_in(_OPEN)))
    return found


def any_succeeded(connection: Connection, run_id: str) -> bool:
    """Whether a trial of the run has succeeded so far."""
    succeeded = and_(trials.c.run_id == run_id, _OWN, trials.c.state == TrialState.SUCCEEDED)
    return connection.scalar(select(trials.c.name).where(succeeded).limit(1)) is not None


def mean_trained_characters(connection: Connection, names: Sequence[str]) -> int | None:
    """Average `trained_characters` of the succeeded ones of these trials; None if none succeeded."""
    mean = connection.scalar(
        select(func.avg(trials.c.trained_characters)).where(
            trials.c.name.in_(names), trials.c.state == TrialState.SUCCEEDED
        )
    )
    return None if mean is None else round(mean)


def paired_verdicts(connection: Connection, name: str) -> tuple[tuple[Verdict, ...], tuple[Verdict, ...]]:
    """A trial's verdicts and its baseline's, in the order of the queries."""
    row = connection.execute(select(trials.c.verdicts, trials.c.baseline_verdicts).where(trials.c.name == name)).one()
    return tuple(map(Verdict.from_stored, row.verdicts)), tuple(map(Verdict.from_stored, row.baseline_verdicts))


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
        select(*NO_VERDICTS)
        .where(trials.c.run_id == run_id, trials.c.selected, trials.c.round.between(from_round, to_round))
        .order_by(trials.c.round, trials.c.name)
    )
    return [from_row(row) for row in rows]


def unfinished(connection: Connection, run_id: str, dead: Collection[str]) -> tuple[list[str], list[str]]:
    """Names of the run's queued trials, and of those that a dead worker had."""
    of_run = and_(trials.c.run_id == run_id, _OWN)
    waiting = select(trials.c.name).where(of_run, trials.c.state == TrialState.QUEUED).order_by(trials.c.create_time)
    orphaned = select(trials.c.name).where(of_run, trials.c.state == TrialState.RUNNING, unheld(trials.c.worker, dead))
    return list(connection.scalars(waiting)), list(connection.scalars(orphaned))


def put_back(connection: Connection, lease: RunLease, dead: Collection[str]) -> None:
    """Queues the run's trials of dead workers again; their results will be late. Raises LeaseLost."""
    hold(connection, lease)
    orphaned = and_(trials.c.run_id == lease.run_id, _OWN, unheld(trials.c.worker, dead))
    connection.execute(queue_again(orphaned))


def orphaned_of_paused(connection: Connection, dead: Collection[str]) -> bool:
    """Whether a dead worker had a trial of a paused run."""
    running = trials.c.state == TrialState.RUNNING
    return connection.scalar(select(trials.c.name).where(running, _of_paused(dead)).limit(1)) is not None


def put_back_of_paused(connection: Connection, dead: Collection[str]) -> None:
    """Queues the trials of paused runs again that a dead worker had, because no driver does it."""
    connection.execute(queue_again(_of_paused(dead)))


def queue_again(which: Any) -> Update:
    """Queues those of these trials again that are running; their workers' results will be late."""
    had = and_(which, trials.c.state.in_(states.GIVE_BACK_TRIAL.sources))
    back = {"state": states.GIVE_BACK_TRIAL.target, "worker": "", "token": trials.c.token + 1}
    return update(trials).where(had).values(**back)


def _of_paused(dead: Collection[str]) -> Any:
    paused = select(runs.c.run_id).where(runs.c.state == RunState.PAUSED)
    return and_(trials.c.run_id.in_(paused), unheld(trials.c.worker, dead))


# --- with the run -----------------------------------------------------------------------------------------------------
def cancel(connection: Connection, run_id: str) -> None:
    """Cancels every trial of a run that has not ended; later results will be late."""
    unfinished = and_(trials.c.run_id == run_id, _OWN, trials.c.state.in_(_OPEN))
    values = {"state": states.CANCEL_TRIAL.target, "worker": "", "token": trials.c.token + 1, "end_time": now()}
    connection.execute(update(trials).where(unfinished).values(**values))


def retryable(connection: Connection, run_id: str, names: Collection[str] | None = None) -> list[str]:
    """The failed and cancelled trials of a run that can still count: not those of E-steps whose M-step is done, and not
    those that score a policy which the gate refused. With `names`, only those of the failed ones. Raises UnknownTrial
    if the run has no such trial."""
    closed = select(rounds.c.round).where(rounds.c.run_id == run_id, rounds.c.next_policy.is_not(None))
    made = select(policies.c.round).where(policies.c.run_id == run_id, policies.c.round.is_not(None))
    refused = select(policies.c.name).where(policies.c.run_id == run_id, policies.c.gate == GateState.REFUSED)
    scores = and_(trials.c.phase == TrialPhase.HELD_OUT, trials.c.policy.not_in(refused))
    counts = or_(scores, and_(trials.c.phase == TrialPhase.E_STEP, trials.c.round.not_in(closed.union(made))))
    again = and_(trials.c.run_id == run_id, _OWN, trials.c.state.in_(states.RETRY_TRIAL.sources), counts)
    found = connection.execute(select(trials.c.name, trials.c.state).where(again)).all()
    if names is None:
        return [row.name for row in found]
    for name in names:
        if connection.scalar(select(trials.c.name).where(trials.c.name == name, trials.c.run_id == run_id)) is None:
            raise UnknownTrial(f"runs/{run_id} has no trial {name}", metadata={"trial": name})
    return [row.name for row in found if row.name in set(names) or row.state == TrialState.CANCELLED]


def reset(connection: Connection, run_id: str, names: Sequence[str]) -> None:
    """Queues these of a run's trials again, and subtracts their usage, which is added again when they end.

    The passage-only trial of such a group is deleted, because its budget is that of the group, which may change.
    """
    back = {"state": states.RETRY_TRIAL.target, "attempts": 0, "worker": "", "error": None, "end_time": None}
    values = {**back, "token": trials.c.token + 1}
    for start in range(0, len(names), _CHUNK):
        these = trials.c.name.in_(names[start : start + _CHUNK])
        rows = connection.execute(select(*NO_VERDICTS).where(these)).all()
        connection.execute(update(trials).where(these).values(**values))
        spent = sum((Usage.from_stored(row.usage) for row in rows if row.state == TrialState.FAILED), Usage())
        counted = update(runs).where(runs.c.run_id == run_id).values(**budgets.less_spent(spent))
        tenant = connection.execute(counted.returning(runs.c.tenant)).scalar_one()
        quotas.spend(connection, tenant, -spent.device_seconds)
        groups = {(row.round, row.phase, row.context_id) for row in rows if row.editor != Editor.PASSAGE_ONLY}
        for number, phase, context_id in groups:
            of_group = {"run_id": run_id, "round": number, "phase": phase, "context_id": context_id}
            connection.execute(delete(trials).filter_by(**of_group, editor=Editor.PASSAGE_ONLY))


def count_done(run_id: str) -> ScalarSelect[int]:
    """The number of trials of a run that have ended, as a subquery."""
    return (
        select(func.count())
        .select_from(trials)
        .where(trials.c.run_id == run_id, _OWN, trials.c.state.not_in(_OPEN))
        .scalar_subquery()
    )


# --- reading ----------------------------------------------------------------------------------------------------------
def get(connection: Connection, scope: AccessScope, name: str) -> Trial:
    """One trial with its verdicts. Raises UnknownTrial."""
    query = select(trials).where(trials.c.name == name, scope.of_run(trials.c.run_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownTrial(f"there is no trial {name}", metadata={"trial": name})
    return from_row(row, row.verdicts, row.baseline_verdicts, row.manifest)


def of_run(connection: Connection, run_id: str) -> list[Trial]:
    """All trials of a run except reruns, without verdicts, in the order of their names."""
    query = select(*NO_VERDICTS).where(trials.c.run_id == run_id, _OWN).order_by(trials.c.round, trials.c.name)
    return [from_row(row) for row in connection.execute(query)]


def page(
    connection: Connection, scope: AccessScope, parent: str, size: int, token: str, *, state: TrialState | None = None
) -> Page[Trial]:
    """Trials of `runs/{id}` or `runs/{id}/rounds/{round}`, all or those in one state, in the order of their names.
    Raises UnknownRun, InvalidInput on a bad token."""
    run_id, round_index = parent_of_trials(parent)
    if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id, scope.runs)) is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": run_name(run_id)})
    query = select(*NO_VERDICTS).where(trials.c.run_id == run_id)
    if state is not None:
        query = query.where(trials.c.state == state)
    if round_index is not None:
        query = query.where(trials.c.round == round_index)
    if key := key_of(token, int, str):
        later = and_(trials.c.round == key[0], trials.c.name > key[1])
        query = query.where(or_(trials.c.round > key[0], later))
    rows = connection.execute(query.order_by(trials.c.round, trials.c.name).limit(size_of(size) + 1)).all()
    shown = rows[: size_of(size)]
    more = len(rows) > len(shown)
    return Page([from_row(row) for row in shown], token_after([shown[-1].round, shown[-1].name]) if more else "")


def from_row(
    row: Row[Any],
    verdicts: Sequence[Any] = (),
    baseline_verdicts: Sequence[Any] = (),
    manifest: Mapping[str, Any] | None = None,
) -> Trial:
    """The trial of a row that may be without verdicts and manifest."""
    own = {
        "completion": row.completion or "",
        "teacher_answers": row.teacher_answers or (),
        "verdicts": verdicts,
        "baseline_verdicts": baseline_verdicts,
        "manifest": manifest or {},
    }
    return Trial.from_stored({field: row._mapping[field] for field in Trial.model_fields if field not in own} | own)
