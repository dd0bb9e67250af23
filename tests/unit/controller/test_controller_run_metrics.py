"""What the record tells Prometheus of a run."""

from __future__ import annotations

from statistics import fmean

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controller.db.run_metrics import RunMetrics
from sealkit.observability.metrics import RUN_GAUGES
from sealkit.resources import Editor, TrialPhase
from tests.unit.controller.controller_system import System


def values(metrics: RunMetrics, family: str) -> dict[tuple[str, ...], float]:
    """By the labels after the run's, in the family's order."""
    (found,) = (metric for metric in metrics.collect() if metric.name == family)
    names = [name for name in RUN_GAUGES[family][1] if name != "run"]
    return {tuple(sample.labels[name] for name in names): sample.value for sample in found.samples}


async def test_a_finished_run_is_told_as_its_record_has_it(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create())
    metrics = RunMetrics(system.database)
    await metrics.refresh()
    trials = await system.trials(run)
    edits = [
        t for t in trials if t.phase is TrialPhase.E_STEP and t.editor != Editor.PASSAGE_ONLY and "/rounds/0/" in t.name
    ]
    assert values(metrics, "seal_run_progress_ratio") == {(): 1.0}
    assert values(metrics, "seal_run_active") == {(): 0.0}
    assert values(metrics, "seal_run_round_progress_ratio") == {("0",): 1.0, ("1",): 1.0}
    assert values(metrics, "seal_run_policy_version") == {(): 2.0}
    assert values(metrics, "seal_runs")["succeeded",] == 1
    rewards = [t.reward for t in edits if t.reward is not None]
    assert values(metrics, "seal_run_reward_mean")["0",] == pytest.approx(fmean(rewards))
    assert values(metrics, "seal_run_acceptance_ratio")["0",] == fmean(t.selected for t in edits)
    assert set(values(metrics, "seal_run_policy_forgetting")) == {("0",), ("1",), ("2",)}
    assert sum(values(metrics, "seal_run_trials").values()) == len(trials)


async def test_a_run_that_changed_is_read_again(system: System) -> None:
    run = await system.create()
    metrics = RunMetrics(system.database)
    await metrics.refresh()
    assert values(metrics, "seal_run_active") == {(): 1.0}
    async with system.working():
        await system.until(run)
    await metrics.refresh()
    assert values(metrics, "seal_run_active") == {(): 0.0}


async def test_every_family_has_a_form_that_prometheus_reads(system: System) -> None:
    async with system.working():
        await system.until(await system.create())
    metrics = RunMetrics(system.database)
    await metrics.refresh()
    registry = CollectorRegistry()
    registry.register(metrics)
    text = generate_latest(registry).decode()
    assert all(f"# TYPE {family} gauge" in text for family in RUN_GAUGES)
