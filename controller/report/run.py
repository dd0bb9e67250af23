"""The report of a run: accuracies of every arm, kept trials, forgetting, and the effect of the RL step.

`controller.rules.scores` averages accuracies and defines how a rejected self-edit counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from controller.report.cost import arm_costs, cost_of, round_costs
from controller.report.power import power_of_run
from controller.rules.scores import Scores, baselines, figures, paired_gain, policy_scores, scores_of
from sealkit.config import CostConfig
from sealkit.reports import CurvePoint, Estimate, ReportRow, RunReport
from sealkit.resources import Editor, GateState, PolicyVersion, Run, Trial, TrialPhase, TrialState
from sealkit.stats import mean_estimate, widened
from sealkit.types import Usage

_SPLITS = {TrialPhase.E_STEP: "train", TrialPhase.HELD_OUT: "held_out"}


def build_report(run: Run, trials: Sequence[Trial], policies: Sequence[PolicyVersion], prices: CostConfig) -> RunReport:
    """The report of a run, finished or not. `policies`: those of the run, oldest first, with θ_0."""
    order = {policy.name: index for index, policy in enumerate(policies)}
    variant = max((trial.batch_variant_rate for trial in trials), default=0.0)
    rows = [_widened(row, variant) for phase in _SPLITS for row in _split_rows(phase, trials, order)]
    self_edits = [trial for trial in trials if trial.editor == Editor.POLICY]
    held_out = [trial for trial in trials if trial.phase is TrialPhase.HELD_OUT]
    curve = _curve(held_out, policies)
    adopted = [point.policy for point in curve if point.adopted]
    gain, verdict = _rl_step(held_out, order, adopted)
    if gain and any(point.accuracy and not point.adopted for point in curve):
        verdict += " It was chosen on these contexts, so this figure is optimistic."
    refused = [policy for policy in policies if policy.gate is GateState.REFUSED and policy.round is not None]
    if refused and len(refused) == len(policies) - 1:
        verdict = (
            f"The gate refused every policy that was trained, so the policy did not change: {refused[-1].gate_reason}."
        )
    against, sentences = _against_others(held_out, order, adopted)
    return RunReport(
        rows=tuple(rows),
        trial_counts=dict(sorted(Counter(_outcome(trial) for trial in trials).items())),
        kept=sum(trial.selected for trial in trials),
        trial_forgetting=mean_estimate([t.forgetting for t in self_edits if t.forgetting is not None], low=-1.0),
        policies=tuple(policies),
        stage_seconds=_stage_means(trials),
        rl_gain=gain,
        verdict=" ".join([verdict, *sentences]),
        usage=sum([*(t.usage for t in trials), *(p.usage for p in policies)], Usage()),
        wall_seconds=run.active_seconds,
        cost=cost_of(trials, policies, prices),
        round_costs=round_costs(trials, policies, prices),
        arm_gains=against,
        arm_costs=arm_costs(trials, prices),
        generated_exam=any(trial.generated_exam for trial in trials),
        curve=tuple(curve),
        power=power_of_run(held_out, adopted),
    )


def _split_rows(phase: TrialPhase, trials: Sequence[Trial], order: Mapping[str, int]) -> Iterable[ReportRow]:
    """Rows of one split: base, passage-only, the other arms, then the self-edits of each policy."""
    split = _SPLITS[phase]
    here = [trial for trial in trials if trial.phase is phase]
    base = baselines(here)
    first: dict[str, float] = {}
    for policy, context in sorted(base, key=lambda key: order.get(key[0], len(order))):
        first.setdefault(context, base[policy, context])
    yield from _row("base", "no adapter", split, mean_estimate(list(first.values())))
    passage = scores_of(here, base, Editor.PASSAGE_ONLY)
    yield from _row("passage_only", "passage only", split, passage.mean())
    for editor in sorted({trial.editor for trial in here} - {Editor.POLICY, Editor.PASSAGE_ONLY}):
        yield from _arm_rows(scores_of(here, base, editor), f"{editor}.self_edit", f"self-edits by {editor}", split)
    for name, index in order.items():
        yield from _arm_rows(policy_scores(here, name), f"theta_{index}.self_edit", f"self-edits by θ_{index}", split)


def _arm_rows(arm: Scores, key: str, who: str, split: str) -> Iterable[ReportRow]:
    """Mean and, if a context has several, best."""
    yield from _row(f"{key}.mean", f"{who}, mean", split, arm.mean())
    if any(len(scores) > 1 for scores in arm.by_context.values()):
        k = max(len(scores) for scores in arm.by_context.values())
        yield from _row(f"{key}.best", f"{who}, best of {k}", split, mean_estimate(list(arm.bests().values())))


def _row(key: str, label: str, split: str, accuracy: Estimate | None) -> Iterable[ReportRow]:
    if accuracy is not None:
        yield ReportRow(key=f"{split}.{key}", label=label, split=split, accuracy=accuracy)


def _widened(row: ReportRow, variant: float) -> ReportRow:
    """The row with its interval widened by the share of answers that depend on the batch."""
    return row.changed(accuracy=widened(row.accuracy, variant))


def _curve(held_out: Sequence[Trial], policies: Sequence[PolicyVersion]) -> list[CurvePoint]:
    """Every policy, oldest first, each against the last adopted one before it; empty if none was scored."""
    variant = max((trial.batch_variant_rate for trial in held_out), default=0.0)
    points: list[CurvePoint] = []
    best: Mapping[str, float] = {}
    for policy in policies:
        scores = policy_scores(held_out, policy.name)
        mean = scores.mean()
        points.append(
            CurvePoint(
                policy=policy.name,
                accuracy=widened(mean, variant) if mean else None,
                gain=paired_gain(best, scores.means(), held_out),
                adopted=policy.gate.adopted,
                reason="" if policy.gate.adopted else policy.gate_reason,
            )
        )
        if policy.gate.adopted and mean:
            best = scores.means()
    return points if any(point.accuracy for point in points) else []


def _rl_step(
    held_out: Sequence[Trial], order: Mapping[str, int], adopted: Sequence[str]
) -> tuple[Estimate | None, str]:
    """How much better the self-edits of the last adopted policy are than the first's, and a sentence."""
    arms = {name: policy_scores(held_out, name).means() for name in adopted}
    scored = [name for name in adopted if arms[name]]
    if len(order) < 2:
        return None, "No self-edit was kept, so the policy did not change and the RL step had no effect."
    gain = paired_gain(arms[scored[0]], arms[scored[-1]], held_out) if len(scored) > 1 else None
    if gain is None:
        unknown = "The policies were not scored on the same held-out contexts, so the effect of the RL step is unknown."
        return None, unknown
    found = f"θ_{order[scored[-1]]} minus θ_0 is {figures(gain)}"
    if gain.low > 0:
        return gain, f"The RL step improved the self-edits: {found}."
    if gain.high < 0:
        return gain, f"The RL step made the self-edits worse: {found}."
    return gain, f"The RL step had no measurable effect in this run: {found}."


def _against_others(
    held_out: Sequence[Trial], order: Mapping[str, int], adopted: Sequence[str]
) -> tuple[dict[str, Estimate], list[str]]:
    """The last adopted policy's score on held-out contexts minus that of every other editor, and a sentence on each."""
    base = baselines(held_out)
    arms = {name: policy_scores(held_out, name).means() for name in adopted}
    last = next((name for name in reversed(adopted) if arms[name]), None)
    gains: dict[str, Estimate] = {}
    if last is None:
        return gains, []
    for editor in sorted({trial.editor for trial in held_out} - {Editor.POLICY, Editor.PASSAGE_ONLY}):
        gain = paired_gain(scores_of(held_out, base, editor).means(), arms[last], held_out)
        if gain is not None:
            gains[editor] = gain
    who = f"θ_{order[last]}"
    return gains, [f"{_standing(who, editor, gain)}: {figures(gain)}." for editor, gain in gains.items()]


def _standing(who: str, editor: str, gain: Estimate) -> str:
    if gain.low > 0:
        return f"{who} writes better self-edits than {editor}"
    if gain.high < 0:
        return f"{who} writes worse self-edits than {editor}"
    return f"{who} and {editor} do not differ measurably"


def _outcome(trial: Trial) -> str:
    """State, with the reason if the trial has no score; trials that early stopping stopped are counted separately."""
    if trial.state is TrialState.REJECTED:
        return f"rejected: {trial.rejection.partition(':')[0]}"
    if trial.state is TrialState.FAILED and trial.error:
        return f"failed: {trial.error.reason}"
    return "stopped early" if trial.stopped_early else trial.state.value


def _stage_means(trials: Iterable[Trial]) -> dict[str, float]:
    stages: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        for stage, seconds in trial.stage_seconds.items():
            stages[stage].append(seconds)
    return {stage: fmean(values) for stage, values in stages.items()}
