"""The cost of a run, by stage and by round, and per point of gain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from sealkit.config import CostConfig
from sealkit.reports import Cost
from sealkit.resources import Editor, PolicyVersion, Trial, TrialPhase, TrialState
from sealkit.types import Usage

M_STEP = "m_step"
UNSPLIT = "unsplit"
"""Usage of trials of older versions, which did not store it by stage."""
_MILLION, _HOUR, _POINT = 1e6, 3600.0, 0.01


def cost_of(trials: Sequence[Trial], policies: Sequence[PolicyVersion], prices: CostConfig) -> Cost:
    """The cost of these trials and M-steps. `policies`: oldest first; reruns are excluded.

    A point of gain is 0.01 of the accuracy that the last policy's self-edits have over no adapter, averaged over
    contexts (held-out ones if there are any). Without gain there is no cost per point.
    """
    own = [trial for trial in trials if trial.phase is not TrialPhase.RERUN]
    stages = _stages(own, policies)
    total = sum(stages.values(), Usage())
    accepted = sum(trial.selected for trial in own)
    points = (_gain(own, policies) or 0.0) / _POINT
    return Cost(
        stages=stages,
        accepted=accepted,
        device_seconds_per_accepted=total.device_seconds / accepted if accepted else None,
        tokens_per_accepted=total.tokens / accepted if accepted else None,
        device_seconds_per_point=total.device_seconds / points if points > 0 else None,
        money=_money(own, total, prices),
        currency=prices.currency,
    )


def round_costs(trials: Sequence[Trial], policies: Sequence[PolicyVersion], prices: CostConfig) -> dict[int, Cost]:
    """The cost of each round, by its index: its trials and its M-step. The scoring of a policy belongs to the round
    that made it."""
    of_trials: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        of_trials[trial.round].append(trial)
    of_policies: dict[int, list[PolicyVersion]] = defaultdict(list)
    for policy in policies:
        if policy.round is not None:
            of_policies[policy.round].append(policy)
    rounds = sorted(of_trials.keys() | of_policies.keys())
    return {number: cost_of(of_trials[number], of_policies[number], prices) for number in rounds}


def arm_costs(trials: Sequence[Trial], prices: CostConfig) -> dict[str, Cost]:
    """The cost of each editor's self-edits and of trying them, without M-steps."""
    own = [trial for trial in trials if trial.phase is not TrialPhase.RERUN]
    editors = sorted({trial.editor for trial in own})
    return {editor: cost_of([trial for trial in own if trial.editor == editor], (), prices) for editor in editors}


def _stages(trials: Iterable[Trial], policies: Iterable[PolicyVersion]) -> dict[str, Usage]:
    stages: dict[str, Usage] = {}
    for trial in trials:
        for stage, usage in (trial.stage_usage or {UNSPLIT: trial.usage}).items():
            stages[stage] = stages.get(stage, Usage()) + usage
    for policy in policies:
        stages[M_STEP] = stages.get(M_STEP, Usage()) + policy.usage
    return {stage: usage for stage, usage in stages.items() if usage != Usage()}


def _gain(trials: Sequence[Trial], policies: Sequence[PolicyVersion]) -> float | None:
    """Mean over contexts of accuracy with the last policy's adapters minus accuracy without. A rejected self-edit
    counts as zero gain."""
    held_out = [trial for trial in trials if trial.phase is TrialPhase.HELD_OUT]
    scored = [t for t in held_out or trials if t.editor == Editor.POLICY and t.baseline_accuracy is not None]
    order = {policy.name: index for index, policy in enumerate(policies)}
    last = max((order.get(trial.policy, -1) for trial in scored), default=-1)
    by_context: dict[str, list[float]] = defaultdict(list)
    for trial in scored:
        if order.get(trial.policy, -1) != last:
            continue
        if trial.state is TrialState.REJECTED:
            by_context[trial.context_id].append(0.0)
        elif trial.accuracy is not None and trial.baseline_accuracy is not None:
            by_context[trial.context_id].append(trial.accuracy - trial.baseline_accuracy)
    return fmean(fmean(gains) for gains in by_context.values()) if by_context else None


def _money(trials: Iterable[Trial], total: Usage, prices: CostConfig) -> float | None:
    """None if the config has no price."""
    if not prices.device_hour and not prices.editors:
        return None
    spent = total.device_seconds / _HOUR * prices.device_hour
    for trial in trials:
        if price := prices.editors.get(trial.editor):
            written = trial.stage_usage.get("generate", Usage())
            spent += (written.prompt_tokens * price.prompt + written.completion_tokens * price.completion) / _MILLION
    return spent
