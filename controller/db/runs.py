"""Runs in the database: create, drive, pause, cancel, resume, end. Their states and transitions are in `states`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, or_, select, update

from controller.db import aliases, budgets, documents, events, quotas, states, trials
from controller.db import contexts as context_rows
from controller.db.access import FULL_ACCESS, AccessScope, ChangeRequest
from controller.db.database import insert_new
from controller.db.documents import NewDocument
from controller.db.leases import RunLease, hold, unheld
from controller.db.pages import Page, key_of, size_of, token_after
from controller.db.quotas import QuotaRequest
from controller.db.requests import first_time
from controller.db.states import Move
from controller.db.tables import RUN_HEAD, now, policies, runs
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.errors import RequestIdReused, RunNotResumable, UnknownPolicy, UnknownRun
from sealkit.names import alias_name, run_name
from sealkit.observability import tracing
from sealkit.resources import Budget, Fault, Run, RunState, RunStateChanged, RunWaiting, StageStarted
from sealkit.stored_config import StoredConfig, read_stored_config
from sealkit.types import Value, digest_of

_OPEN = states.CANCEL_RUN.sources
"""The states of a run that has not ended."""


class PlannedTrials(Value):
    """Planned trials of a run, if every round makes a new policy.

    Attributes:
        groups: Groups of the E-steps; a group is a context in a round.
        edits: Self-edits, of E-steps and of the scoring of policies.
        passages: Passage-only trials.
    """

    groups: int
    edits: int
    passages: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.edits + self.passages


class NewRun(Value):
    """A run to insert; `digest` is that of its content, to detect a reused request id."""

    run_id: str
    digest: str
    display_name: str
    config: RunConfig
    retention: tuple[dict[str, Any], ...]
    anchors: tuple[dict[str, str], ...] = ()
    """The anchors that were drawn: {id, prompt}."""
    alias: str = ""
    """The alias that it learns documents on, or makes forget; empty: none."""
    documents: tuple[NewDocument, ...] = ()
    rounds_total: int
    planned: PlannedTrials


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a driver or a worker needs of a run. Constant, except `trace`, to which later calls are added, and
    `base_answers`, which are None until the base model has answered."""

    run_id: str
    config: RunConfig
    retention: Sequence[Mapping[str, Any]]
    trace: str = ""
    anchors: Sequence[Mapping[str, str]] = ()
    base_answers: Mapping[str, Any] | None = None
    alias: str = ""
    """The alias that it learns documents on; empty: none."""


def create(connection: Connection, change: ChangeRequest, new: NewRun, run_contexts: Sequence[Context]) -> Run:
    """Inserts a run for the caller's tenant; the same request again returns the same run. Raises RequestIdReused,
    UnknownPolicy, QuotaExceeded; of a run on an alias also what `aliases.version_to_continue` raises."""
    scope = change.scope
    if not first_time(connection, change, new.digest, f"{new.planned.total} trials"):
        return get(connection, scope, new.run_id)
    config = new.config
    check_start(connection, scope, config.start_policy)
    if new.alias:  # checked again when the run begins, because earlier ones may move the alias
        aliases.version_to_continue(connection, scope.home, new.alias, config.domain.name)
    quotas.check(connection, scope.home, QuotaRequest(new.planned.total, config.scheduling.priority))
    row = {
        **new.model_dump(mode="json", exclude={"digest", "planned", "documents"}),
        "start_policy": config.start_policy,
        "trials_total": new.planned.total,
        "tenant": scope.home,
        "trace": change.trace,
        "state": RunState.QUEUED,
        "create_time": now(),
        "stage": _queued_behind(connection, scope.home, new.alias),
        "turn": _next_turn(connection, scope.home, new.alias),
        "rounds_done": 0,
        "trials_done": 0,
        "events": 0,
        "driver": "",
        "driver_token": 0,
        "budget": config.budget.model_dump(mode="json"),
        "priority": config.scheduling.priority,
        "share": config.scheduling.share,
    }
    if not insert_new(connection, runs, row):
        raise RequestIdReused(f"request_id {change.request_id!r} gives a name that exists; use a new id")
    context_rows.add(connection, new.run_id, run_contexts)
    documents.add(connection, new.run_id, new.documents)
    events.append(connection, new.run_id, RunStateChanged(state=RunState.QUEUED))
    return get(connection, scope, new.run_id)


def check_start(connection: Connection, scope: AccessScope, start_policy: str) -> None:
    """Raises UnknownPolicy if the start policy does not exist; empty: the base model."""
    named = and_(policies.c.name == start_policy, scope.of_run(policies.c.run_id))
    if start_policy and not connection.scalar(select(policies.c.name).where(named)):
        raise UnknownPolicy(
            f"start_policy {start_policy!r} does not exist; ListPolicies lists those that do",
            metadata={"policy": start_policy},
        )


def get(connection: Connection, scope: AccessScope, run_id: str) -> Run:
    """One run. Raises UnknownRun."""
    return _run(_row(connection, scope, run_id))


def page(connection: Connection, scope: AccessScope, size: int, token: str) -> Page[Run]:
    """Runs, newest first. Raises InvalidInput on a bad token."""
    newest_first = runs.c.create_time.desc(), runs.c.run_id.desc()
    query = select(runs).where(scope.runs).order_by(*newest_first).limit(size_of(size) + 1)
    if key := key_of(token, str):
        last = select(runs.c.create_time).where(runs.c.run_id == key[0], scope.runs).scalar_subquery()
        same = and_(runs.c.create_time == last, runs.c.run_id < key[0])
        query = query.where(or_(runs.c.create_time < last, same))
    rows = connection.execute(query).all()
    shown = rows[: size_of(size)]
    return Page([_run(row) for row in shown], token_after([shown[-1].run_id]) if len(rows) > len(shown) else "")


def plan(connection: Connection, run_id: str) -> RunPlan:
    """The run's plan. Raises UnknownRun, ConfigOutdated."""
    row = _row(connection, FULL_ACCESS, run_id)
    config = read_stored_config(row.config).in_full(run_name(run_id))
    return RunPlan(run_id, config, row.retention, row.trace, row.anchors, row.base_answers, row.alias)


def stored_config(connection: Connection, run_id: str) -> StoredConfig:
    """The run's config, as far as this version can read it."""
    return read_stored_config(connection.scalars(select(runs.c.config).where(runs.c.run_id == run_id)).one())


def retention(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """The run's retention suite, as records."""
    return list(connection.scalars(select(runs.c.retention).where(runs.c.run_id == run_id)).one())


@dataclass(frozen=True, slots=True)
class RunStream:
    """A run whose trials may start; a higher `priority` goes first, within a priority by `share`."""

    run_id: str
    priority: int
    share: float


def streams(connection: Connection) -> list[RunStream]:
    """The runs whose trials workers may take: running, with budget left."""
    rows = connection.execute(select(*RUN_HEAD).where(runs.c.state == RunState.RUNNING)).all()
    return [RunStream(row.run_id, row.priority, row.share) for row in rows if budgets.may_start(connection, row)]


def unsettled(connection: Connection) -> set[str]:
    """Ids of the runs that may still have trials to execute: not ended."""
    return set(connection.scalars(select(runs.c.run_id).where(runs.c.state.in_(_OPEN))))


# --- driving ----------------------------------------------------------------------------------------------------------
def free(connection: Connection, dead: Collection[str]) -> list[str]:
    """Ids of the unfinished runs that no living worker drives, and that wait for no other run of their alias."""
    unfinished = runs.c.state.in_(states.TAKE_RUN.sources)
    query = select(runs.c.run_id).where(unfinished, unheld(runs.c.driver, dead), ~_waits_for_its_alias())
    return list(connection.scalars(query))


def _waits_for_its_alias() -> ColumnElement[bool]:
    """Whether a run that learns on an alias comes after another one that has not ended."""
    other = runs.alias("other")
    same = and_(other.c.tenant == runs.c.tenant, other.c.alias == runs.c.alias, other.c.state.in_(_OPEN))
    before = or_(other.c.turn < runs.c.turn, and_(other.c.turn == runs.c.turn, other.c.run_id < runs.c.run_id))
    return and_(runs.c.alias != "", exists().where(same, before).correlate(runs))


def _next_turn(connection: Connection, tenant: str, alias: str) -> int:
    """The turn of a new run of an alias; 0 without an alias. Two runs that are created at the same moment may get the
    same turn; then their ids decide."""
    if not alias:
        return 0
    of_alias = and_(runs.c.tenant == tenant, runs.c.alias == alias)
    return (connection.scalar(select(func.max(runs.c.turn)).where(of_alias)) or 0) + 1


def _queued_behind(connection: Connection, tenant: str, alias: str) -> str:
    """The stage of a new run: which run of its alias is before it, if any."""
    if not alias:
        return "queued"
    of_alias = and_(runs.c.tenant == tenant, runs.c.alias == alias, runs.c.state.in_(_OPEN))
    before = connection.scalar(select(runs.c.run_id).where(of_alias).order_by(runs.c.turn.desc()).limit(1))
    return f"queued behind {run_name(before)}, on {alias_name(alias)}" if before else "queued"


def take_free(connection: Connection, worker_id: str, dead: Collection[str]) -> list[RunLease]:
    """Takes every unfinished run that no living worker drives."""
    rows = connection.execute(
        select(runs.c.run_id, runs.c.driver_token, runs.c.state).where(runs.c.run_id.in_(free(connection, dead)))
    ).all()
    leases = [_take(connection, worker_id, *row) for row in rows]
    return [lease for lease in leases if lease is not None]


def _take(connection: Connection, worker_id: str, run_id: str, token: int, state: str) -> RunLease | None:
    took = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.driver_token == token, runs.c.state == state)
        .values(driver=worker_id, driver_token=token + 1, state=states.TAKE_RUN.target)
        .values(start_time=func.coalesce(runs.c.start_time, now()))
    )
    if not took.rowcount:
        return None
    if state == RunState.QUEUED:
        events.append(connection, run_id, RunStateChanged(state=RunState.RUNNING))
    return RunLease(run_id, token + 1)


def release(connection: Connection, lease: RunLease) -> None:
    """Releases a run that has not ended, so that another driver can take it at once."""
    connection.execute(
        update(runs).where(runs.c.run_id == lease.run_id, runs.c.driver_token == lease.token).values(driver="")
    )


def stage(connection: Connection, lease: RunLease, round_index: int, name: str) -> None:
    """Records that a stage begins; idempotent. If the run's budget is used up, the run is paused instead. Raises
    LeaseLost."""
    row = hold(connection, lease)
    if budgets.settle(connection, row, budgets.BUT_TRIALS):
        return
    words = f"round {round_index + 1} of {row.rounds_total}: {name}"
    if row.stage != words:
        connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(stage=words))
        events.append(connection, lease.run_id, StageStarted(round=round_index, stage=name))


def waits(connection: Connection, run_id: str, kind: RunWaiting) -> None:
    """Appends the event that a run waits, or goes on; none to a run that has ended."""
    state = connection.scalar(select(runs.c.state).where(runs.c.run_id == run_id).with_for_update())
    if state in states.TAKE_RUN.sources:
        events.append(connection, run_id, kind)


def unfinished(connection: Connection) -> list[str]:
    """Ids of the runs that a worker drives or should."""
    return list(connection.scalars(select(runs.c.run_id).where(runs.c.state.in_(states.TAKE_RUN.sources))))


def keep_base_answers(connection: Connection, lease: RunLease, answers: Mapping[str, Any]) -> None:
    """Stores the base model's answers for all trainings of the run. Raises LeaseLost."""
    hold(connection, lease)
    connection.execute(update(runs).where(runs.c.run_id == lease.run_id).values(base_answers=dict(answers)))


def succeed(connection: Connection, lease: RunLease) -> None:
    """Ends the run as succeeded. Raises LeaseLost."""
    hold(connection, lease)
    _end(connection, lease.run_id, states.SUCCEED_RUN)


def fail(connection: Connection, lease: RunLease, error: Fault) -> None:
    """Ends the run with an error. Raises LeaseLost."""
    hold(connection, lease)
    _end(connection, lease.run_id, states.FAIL_RUN, error)


def _end(connection: Connection, run_id: str, move: Move, error: Fault | None = None) -> None:
    state = RunState(move.target)
    ended = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(move.sources))
        .values(state=state, end_time=now(), driver="", stage=state.value)
        .values(error=error.model_dump(mode="json") if error else None, driver_token=runs.c.driver_token + 1)
    )
    if ended.rowcount:
        trials.cancel(connection, run_id)
        changes = {"trials_done": trials.count_done(run_id)}
        events.append(connection, run_id, RunStateChanged(state=state, error=error), changes=changes)


# --- changes by callers -----------------------------------------------------------------------------------------------
def pause(connection: Connection, change: ChangeRequest) -> Run:
    """Pauses a run: trials in progress finish, and no more start. Raises UnknownRun, RequestIdReused."""
    _row(connection, change.scope, change.id, lock=True)
    if first_time(connection, change, digest_of("pause", change.id)):
        budgets.pause(connection, change.id)
    return get(connection, change.scope, change.id)


def cancel(connection: Connection, change: ChangeRequest) -> Run:
    """Cancels a run that has not ended, and its trials. Raises UnknownRun, RequestIdReused."""
    _row(connection, change.scope, change.id, lock=True)
    if first_time(connection, change, digest_of("cancel", change.id)):
        _end(connection, change.id, states.CANCEL_RUN)
    return get(connection, change.scope, change.id)


def resume(connection: Connection, change: ChangeRequest, budget: Budget | None = None) -> Run:
    """Queues a paused, failed or cancelled run again, with those of its trials that failed or were cancelled.

    Trials of a round whose M-step is done are not queued again, because they cannot change its policy. `budget`
    replaces the current one. Raises UnknownRun, RunNotResumable, ConfigOutdated, BudgetExhausted, QuotaExceeded,
    RequestIdReused.
    """
    run_id, row = change.id, _row(connection, change.scope, change.id, lock=True)
    given = f"budget {budget.model_dump_json(exclude_defaults=True)}" if budget else ""
    if not first_time(connection, change, digest_of("resume", run_id, budget), given):
        return get(connection, change.scope, run_id)
    if row.state not in states.RESUME_RUN.sources:
        raise RunNotResumable(
            f"runs/{run_id} is {row.state}; only a paused, failed or cancelled run can be resumed",
            metadata={"state": row.state},
        )
    read_stored_config(row.config).in_full(run_name(run_id))
    if budget is not None:
        connection.execute(update(runs).where(runs.c.run_id == run_id).values(budget=budget.model_dump()))
    _link(connection, row, change)
    _try_again(connection, row, trials.retryable(connection, run_id), states.RESUME_RUN)
    return get(connection, change.scope, run_id)


def retry(connection: Connection, change: ChangeRequest, names: Sequence[str]) -> tuple[Run, int]:
    """Queues failed trials of a run again, all of them or those of these names, and also the run if it has ended. A
    running run is started again from the top and skips what is done. Returns the run and the number of trials.

    Raises UnknownRun, UnknownTrial, ConfigOutdated, BudgetExhausted, QuotaExceeded, RequestIdReused; RunNotResumable if
    none of the trials can still count.
    """
    run_id, row = change.id, _row(connection, change.scope, change.id, lock=True)
    named = f"{len(names)} trials named" if names else "all that failed"
    if not first_time(connection, change, digest_of("retry", run_id, sorted(names)), named):
        return get(connection, change.scope, run_id), 0
    again = trials.retryable(connection, run_id, names or None)
    if not again:
        raise RunNotResumable(
            f"runs/{run_id} has no failed trial that can still count: a round whose M-step is done does not change",
            metadata={"state": row.state},
        )
    read_stored_config(row.config).in_full(run_name(run_id))
    _link(connection, row, change)
    if row.state in states.REOPEN_RUN.sources:
        _try_again(connection, row, again, states.REOPEN_RUN)
    else:
        quotas.check(connection, row.tenant, QuotaRequest.of(connection, row, opens=False))
        trials.reset(connection, run_id, again)
        values = {"trials_done": trials.count_done(run_id), "driver": "", "driver_token": runs.c.driver_token + 1}
        connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
    return get(connection, change.scope, run_id), len(again)


def _link(connection: Connection, run: Row[Any], change: ChangeRequest) -> None:
    """Links the run's trace to the call that resumed it."""
    if change.trace:
        trace = tracing.followed_by(run.trace, change.trace)
        connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(trace=trace))


def _try_again(connection: Connection, run: Row[Any], names: Sequence[str], move: Move) -> None:
    run_id = run.run_id
    quotas.check(connection, run.tenant, QuotaRequest.of(connection, run, opens=True))
    trials.reset(connection, run_id, names)
    changes: dict[str, Any] = {"state": move.target, "end_time": None, "error": None, "stage": "queued"}
    if run.alias and run.state != RunState.PAUSED:  # it gave its turn away when it ended
        changes["turn"] = _next_turn(connection, run.tenant, run.alias)
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(move.sources))
        .values(**changes, trials_done=trials.count_done(run_id))
    )
    budgets.check_resumable(connection, run_id)
    events.append(connection, run_id, RunStateChanged(state=RunState.QUEUED))


def _row(connection: Connection, scope: AccessScope, run_id: str, *, lock: bool = False) -> Row[Any]:
    query = select(runs).where(runs.c.run_id == run_id, scope.runs)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownRun(f"there is no run runs/{run_id}", metadata={"run": run_name(run_id)})
    return row


def _run(row: Row[Any]) -> Run:
    return Run(
        name=run_name(row.run_id),
        display_name=row.display_name,
        state=row.state,
        config=row.config,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        error=Fault.from_stored(row.error) if row.error else None,
        progress=events.progress_of(row),
        tenant=row.tenant,
        active_seconds=row.active_seconds,
        unread_config=read_stored_config(row.config).unread,
    )
