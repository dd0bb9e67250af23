"""Estimates the cost of a run from recent trials of the same kind. Nothing is started, and no service is called.

Each measured trial is scaled to the new settings, stage by stage, before the mean is taken: generation by `max_tokens`
(if it was the limit that ended a text, or would be now), training by epochs, evaluation by the number of questions. Not
scaled are the lengths of contexts and training texts, a teacher's answers, rank, and the device. So an estimate is only
good for similar runs, and it names the runs that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from controller.db.rates import DrivenRun, Rates, Took
from controller.db.runs import NewRun, RunPlan
from controller.report.power import planned_power, recorded_variances
from controller.rules.setup import Setup, make_setup
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.reports import Pace, RunEstimate
from sealkit.resources import Editor, Trial
from sealkit.types import Usage

_ASKED_OF = 20
"""Number of contexts whose questions are counted; the mean is used for all."""


def estimate_run(
    new: NewRun,
    contexts: Sequence[Context],
    rates: Rates | None,
    plugins: Sequence[str],
    scored: Sequence[Trial] = (),
) -> RunEstimate:
    """The estimate of a valid run. Without `rates`: only the number of trials. `scored`: recorded self-edits of the
    same domain, for the power of the comparison on held-out contexts."""
    setup = make_setup(RunPlan(new.run_id, new.config, new.retention, anchors=new.anchors), plugins)
    config, planned = setup.config, new.planned
    held_out = 0 if config.task == "adapt" else sum(context.split == "heldout" for context in contexts)
    power = planned_power(held_out, config.held_out.samples, recorded_variances(scored))
    if rates is None:
        basis = f"There is no trial of the domain {config.domain.name} yet, so only the number of trials is known."
        return RunEstimate(trials=planned.total, usage=Usage(), wall_seconds=0.0, based_on=0, basis=basis, power=power)
    queries = _queries(setup, contexts)
    usage = _times(_mean(rates, config, queries, passage=False), planned.edits)
    usage += _times(_mean(rates, config, queries, passage=True), planned.passages)
    usage += _m_steps(rates, config, planned.groups)
    return RunEstimate(
        trials=planned.total,
        usage=usage,
        wall_seconds=_wall_seconds(rates, usage, planned.total),
        based_on=len(rates.trials),
        basis=f"The newest {len(rates.trials)} trials of {rates.runs} run{'s' * (rates.runs != 1)} of the domain "
        f"{config.domain.name} on the base model {rates.base_model[:12]}, scaled to this run's settings; the wall time "
        "assumes the same load of the services as then.",
        power=power,
    )


def expected_pace(config: RunConfig, earlier: Sequence[DrivenRun]) -> Pace | None:
    """The mean pace of earlier runs; that of their trials scaled to the settings of `config`. The number of questions
    is taken as theirs."""
    if not earlier:
        return None
    return Pace(
        start_seconds=fmean(run.pace.start_seconds for run in earlier),
        trial_seconds=fmean(run.pace.trial_seconds * _longer(run.trials, config) for run in earlier),
        round_seconds=fmean(run.pace.round_seconds for run in earlier),
    )


def _longer(trials: Sequence[Took], config: RunConfig) -> float:
    """Device seconds of such trials with these settings, divided by what they took."""
    stages = [(stage, usage, took) for took in trials for stage, usage in took.stages.items()]
    were = sum(usage.device_seconds for _, usage, _ in stages)
    would = sum(_scaled(stage, usage, took, config, took.queries).device_seconds for stage, usage, took in stages)
    return would / were if were else 1.0


def _mean(rates: Rates, config: RunConfig, queries: float, *, passage: bool) -> Usage:
    """The usage of one trial of a kind; if none of that kind was measured, that of the other kind."""
    alike = [took for took in rates.trials if (took.editor == Editor.PASSAGE_ONLY) is passage] or rates.trials
    total = Usage()
    for took in alike:
        for stage, usage in took.stages.items():
            if not (passage and stage in ("generate", "teach")):
                total += _scaled(stage, usage, took, config, queries)
    return _times(total, 1 / len(alike))


def _scaled(stage: str, usage: Usage, took: Took, config: RunConfig, queries: float) -> Usage:
    was = took.config
    if stage == "generate":
        tokens, limit = usage.completion_tokens, config.editor.sampling.max_tokens
        ended_by_limit = tokens >= was.editor.sampling.max_tokens
        factor = limit / tokens if tokens and (ended_by_limit or limit < tokens) else 1.0
        return _times(usage, factor).changed(prompt_tokens=usage.prompt_tokens)
    if stage == "train":
        return _times(usage, config.inner_loop.optimisation.epochs / was.inner_loop.optimisation.epochs)
    if stage == "teach":
        return usage
    return _times(usage, queries / took.queries if took.queries else 1.0)


def _m_steps(rates: Rates, config: RunConfig, groups: int) -> Usage:
    """The usage of all M-steps; each kept self-edit is trained on once, or in every later round if M-steps start from
    the base model."""
    if not rates.m_steps:
        return Usage()
    each = Usage()
    for step in rates.m_steps:
        epochs = config.m_step.optimisation.epochs / step.config.m_step.optimisation.epochs
        each += _times(step.usage, epochs / step.examples / len(rates.m_steps))
    kept = rates.kept * groups * config.editor.k
    return _times(each, kept * ((config.rounds + 1) / 2 if config.m_step.start_from == "base" else 1.0))


def _wall_seconds(rates: Rates, usage: Usage, trials: int) -> float:
    """Wall seconds, from device seconds at the rate of the measured runs; from trials, if no device seconds are
    known."""
    if rates.device_seconds and usage.device_seconds:
        return rates.seconds * usage.device_seconds / rates.device_seconds
    return rates.seconds * trials / max(1, rates.trials_done)


def _queries(setup: Setup, contexts: Sequence[Context]) -> float:
    """Average number of questions of a trial."""
    own = fmean(len(setup.domain.queries(context)) for context in contexts[:_ASKED_OF])
    limit = setup.config.evaluation.retention_limit
    return own + min(limit or len(setup.retention), len(setup.retention))


def _times(usage: Usage, factor: float) -> Usage:
    scaled: Mapping[str, Any] = {
        name: round(value * factor) if isinstance(value, int) else value * factor
        for name, value in usage.model_dump().items()
    }
    return Usage(**scaled)
