"""Measured rates of recent trials, for estimates.

They come from the trials of all tenants, so that a tenant's first run can be estimated too: totals of seconds, tokens
and counts. An estimate reveals no name, text or score of another tenant, only the total load.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from controller.db import events
from controller.db import runs as runs_record
from controller.db.access import AccessScope
from controller.db.runs import NewRun
from controller.db.tables import policies, runs, trials
from controller.db.trials import NO_VERDICTS, from_row
from sealkit.config import RunConfig
from sealkit.names import policy_name
from sealkit.reports import Pace
from sealkit.resources import Editor, Trial, TrialPhase, TrialState
from sealkit.stored_config import read_stored_config
from sealkit.types import Usage

_RUNS = 20
"""Number of runs that are read, newest first."""
_TRIALS = 500
"""Number of trials that rates are taken from, newest first."""
_PACES = 3
"""Number of runs that a pace is taken from, newest first."""
_SCORED = (TrialState.SUCCEEDED, TrialState.REJECTED)


@dataclass(frozen=True, slots=True)
class Took:
    """Usage of one trial; `queries`: number of queries of its context and of the retention suite (0: unknown)."""

    config: RunConfig
    editor: str
    stages: dict[str, Usage]
    queries: int


@dataclass(frozen=True, slots=True)
class Taught:
    """Usage of one M-step, on `examples` self-edits."""

    config: RunConfig
    usage: Usage
    examples: int


@dataclass(frozen=True, slots=True)
class Rates:
    """The newest trials of one domain on one base model, and totals of their runs: M-steps, the share of E-step
    self-edits that was kept, active seconds, device seconds, trials done."""

    base_model: str
    runs: int
    trials: tuple[Took, ...]
    m_steps: tuple[Taught, ...]
    kept: float
    seconds: float
    device_seconds: float
    trials_done: int


def rates_for(connection: Connection, scope: AccessScope, new: NewRun) -> Rates | None:
    """The rates of the run's domain on the base model that it was last used with; None if there are none. Raises
    UnknownPolicy if the run's start policy does not exist or is not accessible."""
    runs_record.check_start(connection, scope, new.config.start_policy)
    base, alike = _alike(connection, new.config.domain.name)
    configs = {run_id: config for run_id, row in alike.items() if (config := _config(row)) is not None}
    took = {row.name: row for row in _trials_of(connection, configs)}
    if base is None or not took:
        return None
    used = {run_id: alike[run_id] for run_id in {row.run_id for row in took.values()}}
    return Rates(
        base_model=base,
        runs=len(used),
        trials=tuple(_took(row, configs[row.run_id]) for row in took.values()),
        m_steps=tuple(_m_steps(connection, {run_id: configs[run_id] for run_id in used})),
        kept=_kept(connection, list(used)),
        seconds=sum(row.active_seconds for row in used.values()),
        device_seconds=sum(row.spent_device_seconds for row in used.values()),
        trials_done=sum(row.trials_done for row in used.values()),
    )


@dataclass(frozen=True, slots=True)
class DrivenRun:
    """An earlier run: its pace, and what its newest trials took."""

    pace: Pace
    trials: tuple[Took, ...]


def driven_before(connection: Connection, scope: AccessScope, run_id: str) -> tuple[RunConfig, list[DrivenRun]]:
    """The config of a run, and the newest other runs of its domain and task on its base model that had a pace, newest
    first. Raises UnknownRun."""
    run = runs_record.get(connection, scope, run_id)
    config = read_stored_config(run.config).config
    _, alike = _alike(connection, config.domain.name, _bases_of(connection, [run_id]).get(run_id))
    found: list[DrivenRun] = []
    for other_id, row in alike.items():
        other = _config(row)
        if other_id == run_id or other is None or other.task != config.task or len(found) == _PACES:
            continue
        if pace := events.timeline(connection, other_id).pace:
            took = tuple(_took(trial, other) for trial in _trials_of(connection, [other_id]) if trial.stage_usage)
            found.append(DrivenRun(pace, took))
    return config, found


def _alike(connection: Connection, domain: str, base: str | None = None) -> tuple[str | None, dict[str, Row[Any]]]:
    """A base model, by default the one that the domain was last used with, and the newest runs of the domain on it."""
    of_domain = select(runs).where(runs.c.config["domain"]["name"].as_string() == domain)
    newest = connection.execute(of_domain.order_by(runs.c.create_time.desc()).limit(_RUNS)).all()
    bases = _bases_of(connection, [row.run_id for row in newest])
    base = base or next((bases[row.run_id] for row in newest if row.run_id in bases and row.trials_done), None)
    return base, {row.run_id: row for row in newest if base is not None and bases.get(row.run_id) == base}


def _bases_of(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """By run, the base model; runs that have not begun are left out."""
    first = policies.c.name.in_([policy_name(run_id, 0) for run_id in run_ids])
    rows = connection.execute(select(policies.c.run_id, policies.c.base_model).where(first))
    return {row.run_id: row.base_model for row in rows}


def _trials_of(connection: Connection, run_ids: Collection[str]) -> Sequence[Row[Any]]:
    """The newest scored trials of these runs."""
    return connection.execute(
        select(trials)
        .where(trials.c.run_id.in_(run_ids), trials.c.state.in_(_SCORED), trials.c.phase != TrialPhase.RERUN)
        .order_by(trials.c.end_time.desc())
        .limit(_TRIALS)
    ).all()


def scored_like(connection: Connection, scope: AccessScope, new: NewRun) -> list[Trial]:
    """The newest scored self-edits of policies in runs of the same domain, of those runs that the caller may see."""
    of_domain = runs.c.config["domain"]["name"].as_string() == new.config.domain.name
    newest = select(runs.c.run_id).where(scope.runs, of_domain).order_by(runs.c.create_time.desc()).limit(_RUNS)
    rows = connection.execute(
        select(*NO_VERDICTS)
        .where(trials.c.run_id.in_(newest), trials.c.state.in_(_SCORED), trials.c.phase != TrialPhase.RERUN)
        .where(trials.c.editor == Editor.POLICY)
        .order_by(trials.c.end_time.desc())
        .limit(_TRIALS)
    )
    return [from_row(row) for row in rows]


def _config(row: Row[Any]) -> RunConfig | None:
    """The config of a run, without keys that this version does not have; None if this version rejects a value."""
    stored = read_stored_config(row.config)
    return None if stored.invalid else stored.config


def _took(row: Row[Any], config: RunConfig) -> Took:
    return Took(
        config=config,
        editor=row.editor,
        stages={stage: Usage.from_stored(usage) for stage, usage in row.stage_usage.items()},
        queries=len(row.verdicts) + int((row.retention or {}).get("kept", 0)) if row.verdicts else 0,
    )


def _m_steps(connection: Connection, configs: Mapping[str, RunConfig]) -> list[Taught]:
    rows = connection.execute(
        select(policies.c.run_id, policies.c.usage, policies.c.trials).where(policies.c.run_id.in_(configs))
    )
    return [Taught(configs[row.run_id], Usage.from_stored(row.usage), len(row.trials)) for row in rows if row.trials]


def _kept(connection: Connection, run_ids: Sequence[str]) -> float:
    tried = (
        select(func.count())
        .select_from(trials)
        .where(trials.c.run_id.in_(run_ids), trials.c.phase == TrialPhase.E_STEP, trials.c.editor == Editor.POLICY)
    )
    kept = connection.scalar(tried.where(trials.c.selected)) or 0
    return kept / max(1, connection.scalar(tried) or 0)
