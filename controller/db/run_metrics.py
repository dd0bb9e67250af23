"""Prometheus metrics of the newest runs: rewards, acceptance, forgetting and cost by run and round.

They are read from the database, not counted in memory, so they survive restarts and count nothing twice, and all
replicas of the API report the same values. Only the newest runs are reported, which limits the number of labels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector
from sqlalchemy import Connection, case, func, select

from controller.db import runs as run_record
from controller.db.access import FULL_ACCESS
from controller.db.database import Database
from controller.db.tables import policies, runs, trials
from sealkit.errors import Unavailable
from sealkit.observability.metrics import RUN_GAUGES
from sealkit.resources import Editor, GateState, RunState, TrialPhase, TrialState

log = structlog.get_logger(__name__)

_RUNS_REPORTED = 20
_CONTEXTS_REPORTED = 32
_EVERY_SECONDS = 10.0
_OPEN = (TrialState.QUEUED, TrialState.RUNNING)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family of `RUN_GAUGES`; `labels` in the family's order."""

    family: str
    labels: tuple[str, ...]
    value: float


class RunMetrics(Collector):
    """Registered while the API runs; reads only the runs that changed since the last refresh."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events: dict[str, int] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._states: list[Sample] = []

    def collect(self) -> Iterable[Metric]:
        """The families, from the last refresh."""
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in RUN_GAUGES.items()}
        for sample in [*self._states, *(s for samples in list(self._samples.values()) for s in samples)]:
            families[sample.family].add_metric(sample.labels, sample.value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        """Empty: else the registry would collect before the first refresh, and refuse a second API in one process."""
        return ()

    async def keep(self) -> None:
        """Refreshes periodically; never returns. While the database is unavailable, the last values stay."""
        REGISTRY.register(self)
        try:
            while True:
                try:
                    await self.refresh()
                except Unavailable as error:
                    log.warning("run metrics not refreshed", message=error.message)
                await asyncio.sleep(_EVERY_SECONDS)
        finally:
            REGISTRY.unregister(self)

    async def refresh(self) -> None:
        """Reads the runs that changed. Raises Unavailable."""
        self._states, newest = await self._database.read(_overview)
        for run_id, events in newest.items():
            if self._events.get(run_id) != events:
                self._samples[run_id] = await self._database.read(_of_run, run_id)
                self._events[run_id] = events
        for old in self._samples.keys() - newest.keys():
            del self._samples[old], self._events[old]


def _overview(connection: Connection) -> tuple[list[Sample], dict[str, int]]:
    """Runs by state, and the event counters of the newest."""
    counted = {
        row.state: row.n for row in connection.execute(select(runs.c.state, func.count().label("n")).group_by("state"))
    }
    states = [Sample("seal_runs", (state.value,), counted.get(state, 0)) for state in RunState]
    newest = select(runs.c.run_id, runs.c.events).order_by(runs.c.create_time.desc()).limit(_RUNS_REPORTED)
    return states, {row.run_id: row.events for row in connection.execute(newest)}


def _of_run(connection: Connection, run_id: str) -> list[Sample]:
    return [
        *_progress(connection, run_id),
        *_rounds(connection, run_id),
        *_usage(connection, run_id),
        *_policies(connection, run_id),
    ]


def _progress(connection: Connection, run_id: str) -> Iterator[Sample]:
    run = run_record.get(connection, FULL_ACCESS, run_id)
    done = run.progress
    yield Sample("seal_run_active", (run_id,), float(not run.state.terminal))
    yield Sample("seal_run_progress_ratio", (run_id,), done.trials_done / max(1, done.trials_total))
    yield Sample("seal_run_rounds_done", (run_id,), done.rounds_done)
    last = select(func.max(trials.c.end_time)).where(trials.c.run_id == run_id)
    changed = connection.scalar(last) or run.start_time or run.create_time
    yield Sample("seal_run_last_change_timestamp_seconds", (run_id,), changed.timestamp())
    counted = connection.execute(
        select(trials.c.state, func.count().label("n")).where(trials.c.run_id == run_id).group_by(trials.c.state)
    )
    found = {row.state: row.n for row in counted}
    for state in TrialState:
        yield Sample("seal_run_trials", (run_id, state.value), found.get(state, 0))


def _rounds(connection: Connection, run_id: str) -> Iterator[Sample]:
    """Means over a round's self-edits that have a score; acceptance counts every ended one."""
    yield from _round_progress(connection, run_id)
    edits = [trials.c.run_id == run_id, trials.c.phase == TrialPhase.E_STEP, trials.c.editor != Editor.PASSAGE_ONLY]
    ended = trials.c.state.not_in(_OPEN)
    rows = connection.execute(
        select(
            trials.c.round,
            func.avg(trials.c.reward).label("reward"),
            func.avg(trials.c.accuracy - trials.c.baseline_accuracy).label("gain"),
            func.avg(trials.c.forgetting).label("forgetting"),
            func.avg(case((trials.c.selected, 1.0), else_=0.0)).label("acceptance"),
        )
        .where(*edits, ended)
        .group_by(trials.c.round)
    )
    for row in rows:
        for name in ("reward", "gain", "forgetting", "acceptance"):
            if (value := row._mapping[name]) is not None:
                yield Sample(_ROUND_FAMILIES[name], (run_id, str(row.round)), float(value))


def _round_progress(connection: Connection, run_id: str) -> Iterator[Sample]:
    share = func.avg(case((trials.c.state.in_(_OPEN), 0.0), else_=1.0)).label("ended")
    of_run = (trials.c.run_id == run_id, trials.c.phase != TrialPhase.RERUN)
    for row in connection.execute(select(trials.c.round, share).where(*of_run).group_by(trials.c.round)):
        yield Sample("seal_run_round_progress_ratio", (run_id, str(row.round)), float(row.ended))


_ROUND_FAMILIES = {
    "reward": "seal_run_reward_mean",
    "gain": "seal_run_gain_mean",
    "forgetting": "seal_run_forgetting_mean",
    "acceptance": "seal_run_acceptance_ratio",
}


def _usage(connection: Connection, run_id: str) -> Iterator[Sample]:
    def total(name: str) -> float:
        of = trials.c.usage[name].as_float()
        return float(connection.scalar(select(func.sum(of)).where(trials.c.run_id == run_id)) or 0.0)

    seconds = total("device_seconds")
    yield Sample("seal_run_device_seconds", (run_id,), seconds)
    for kind in ("prompt_tokens", "completion_tokens", "train_tokens"):
        yield Sample("seal_run_tokens", (run_id, kind.removesuffix("_tokens")), total(kind))
    accepted = select(func.count()).select_from(trials).where(trials.c.run_id == run_id, trials.c.selected)
    if kept := connection.scalar(accepted):
        yield Sample("seal_run_device_seconds_per_accepted", (run_id,), seconds / kept)


def _policies(connection: Connection, run_id: str) -> Iterator[Sample]:
    rows = connection.execute(select(policies).where(policies.c.run_id == run_id).order_by(policies.c.version)).all()
    published = [row.version for row in rows if GateState(row.gate).adopted]
    if published:
        yield Sample("seal_run_policy_version", (run_id,), max(published))
    for version, row in enumerate(rows):
        at = (run_id, str(version))
        if row.forgetting is not None:
            yield Sample("seal_run_policy_forgetting", at, row.forgetting)
        if row.held_out_accuracy is not None:
            yield Sample("seal_run_policy_held_out_accuracy", at, row.held_out_accuracy)
        if row.retention:
            yield Sample("seal_run_policy_retention", at, row.retention["accuracy_after"])
            yield Sample("seal_run_policy_lost_queries", at, len(row.retention["lost_query_ids"]))
        if row.divergence:
            yield Sample("seal_run_policy_kl_to_base", at, row.divergence["on_fixed_text"])
    yield from _continual(run_id, [row.scores for row in rows])


def _continual(run_id: str, scores: Sequence[dict[str, float]]) -> Iterator[Sample]:
    """R[i,j] by commit and by position of the context, for the first contexts; empty for runs that do not measure R."""
    places = {context: place for place, context in enumerate(dict.fromkeys(c for row in scores for c in row))}
    for commit, row in enumerate(scores):
        for context, accuracy in row.items():
            if places[context] < _CONTEXTS_REPORTED:
                yield Sample("seal_run_continual_accuracy", (run_id, str(commit), str(places[context])), accuracy)
