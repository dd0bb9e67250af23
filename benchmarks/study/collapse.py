"""The table "Model collapse": ARC in small over five rounds, with a filter and without, each policy trained from the
one before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import log2
from pathlib import Path
from statistics import fmean

from benchmarks.page import bars, difference, figures, plotted
from benchmarks.study import arc
from benchmarks.study.experiment import Experiment
from benchmarks.study.page import all_seeds, groups, head, measured, picture, row
from benchmarks.study.results import Pooled, Results, Scores, of_policy, pooled, self_edits
from controller.rules.scores import baselines
from sealkit.resources import TrialPhase, TrialState
from sealkit.stats import mean_estimate

SETTINGS = (*arc.SETTINGS, "rounds=5", "editor.sampling.temperature=0.5", 'm_step.start_from="policy"')
VARIANTS = {
    "unfiltered": (
        'selection.rule="all"',
        "selection.must_gain=false",
        "selection.must_beat_passage_only=false",
        'gate.held_out="off"',
    ),
    "solved": ("selection.must_beat_passage_only=false", 'gate.held_out="off"'),
    "selective": ("selection.must_beat_passage_only=true", 'gate.held_out="not_worse"'),
}
"""By name: what is kept, and whether a policy that scores lower may be the next one."""
LABELS = {"unfiltered": "no filter", "solved": "solved (SEAL's)", "selective": "selective"}
_RIVALS = ("unfiltered", "solved")
_CHOOSES = "selective"
"""Ends with the policy that scores best on the held-out tasks; the others end with the last one."""
PLOT, ENTROPY_PLOT = "study-collapse.svg", "study-collapse-entropy.svg"


def experiment(seed: int, variant: str, *, quick: bool) -> Experiment:
    """One run. Its first E-step is the same in all variants, so that one stack trains its adapters once."""
    settings = (*SETTINGS, *VARIANTS[variant], *((*arc.QUICK, "rounds=2") if quick else ()))
    return arc.with_tasks("collapse", seed, variant, settings, quick=quick)


def sections(runs: Sequence[Results]) -> dict[str, str]:
    """By name."""
    return {
        "collapse": f"{note(runs)}\n\n{curve_table(runs)}\n\n{picture('Accuracy by round', PLOT)}",
        "collapse-end": end_table(runs),
        "collapse-edits": f"{edit_table(runs)}\n\n{picture('Entropy by round', ENTROPY_PLOT)}",
    }


def note(runs: Sequence[Results]) -> str:
    """n, seeds, machine, date and config."""
    config = runs[0].about["config"]
    return (
        f"Seeds {all_seeds(runs)}; {len(runs[0].policies[0])} held-out tasks a seed, {config['held_out']['samples']} "
        f"self-edits of each policy on each at temperature {config['editor']['sampling']['temperature']}; "
        f"{config['rounds']} rounds of {config['contexts_per_round']} tasks, {config['editor']['k']} self-edits on "
        f"each; m_step.start_from = {config['m_step']['start_from']}; the whole config is in each record. Means over "
        f"tasks with 95 % intervals. {measured(runs, LABELS)}"
    )


def curve_table(runs: Sequence[Results]) -> str:
    """Every policy's held-out accuracy by run; not adopted ones in brackets."""
    most = len(_numbers(runs))
    lines = head(["kept", "seed", "tasks", *(f"θ_{number}" for number in range(most))])
    for variant, seed, group in groups(runs, LABELS):
        cells = []
        for number in range(most):
            cell = figures(pooled(group, partial(of_policy, number)))
            refused = len(group) == 1 and number < len(group[0].gates) and not group[0].gates[number].adopted
            cells.append(f"({cell})" if refused else cell)
        lines.append(row(LABELS[variant], seed, str(len(pooled(group, partial(of_policy, 0)))), *cells))
    return "\n".join(lines)


def end_table(runs: Sequence[Results]) -> str:
    """What each variant ended with, against θ_0 and against its own best policy; and without the advantage of a policy
    that was chosen by the tasks that it is compared on, against θ_0 and the two other variants. Only runs that have
    ended."""
    heads = ["kept", "seed", "ended with", "minus θ_0", "minus its best policy", "\\* minus θ_0"]
    lines = head([*heads, *(f"\\* minus {LABELS[rival]}" for rival in _RIVALS)])
    ended = [run for run in runs if run.finished]
    for variant, seed, group in groups(ended, LABELS):
        first, last, own = pooled(group, partial(of_policy, 0)), pooled(group, lambda run: run.best), _own(group)
        cells = [figures(last), difference(first, last), difference(pooled(group, _top), last)]
        cells.append(difference(first, own) if own != last else "–")
        seeds = {run.seed for run in group}
        for rival in _RIVALS:
            others = _own([run for run in ended if run.variant == rival and run.seed in seeds])
            cells.append("–" if list(LABELS).index(variant) <= list(LABELS).index(rival) else difference(others, own))
        lines.append(row(LABELS[variant], seed, *cells))
    return "\n".join(lines)


def _own(runs: Sequence[Results]) -> Pooled:
    """What these runs ended with; where the policy was chosen by its score on these tasks, for each task the score of
    the policy that the other tasks choose."""
    return pooled(runs, lambda run: run.chosen_without() if run.variant == _CHOOSES else run.best)


def edit_table(runs: Sequence[Results]) -> str:
    """What each policy was trained on, what it writes on the held-out tasks, and what it can do itself: means over the
    seeds, the entropy of each seed in brackets."""
    heads = ["kept", "policy", "trained on", f"distinct of {_asked(runs)}", "entropy, bits", "the most frequent"]
    lines = head([*heads, "rejected", "itself, without an adapter"])
    for label, own in _variants(runs):
        lines += [_row(label, own, number) for number in _numbers(own) if any(_written(run, number) for run in own)]
    return "\n".join(lines)


def _row(label: str, runs: Sequence[Results], number: int) -> str:
    written = [counts for run in runs if (counts := _written(run, number))]
    bits = [entropy(counts) for counts in written]
    each = f" ({', '.join(f'{one:.1f}' for one in bits)})" if len(bits) > 1 else ""
    examples = [about["examples"] for run in runs for about in run.about["policies"][number : number + 1]]
    return row(
        label,
        f"θ_{number}",
        f"{fmean(examples):.0f}" if any(examples) else "–",
        f"{fmean(map(len, written)):.0f}",
        f"{fmean(bits):.2f}{each}",
        f"{fmean(max(counts.values()) / counts.total() for counts in written):.2f}",
        figures(pooled(runs, partial(_rejected, number))),
        figures(pooled(runs, partial(itself, number))),
    )


def _variants(runs: Sequence[Results]) -> list[tuple[str, list[Results]]]:
    """Label and runs of each variant that has any."""
    found = [(label, [run for run in runs if run.variant == name]) for name, label in LABELS.items()]
    return [(label, own) for label, own in found if own]


def _numbers(runs: Sequence[Results]) -> range:
    """The policies of the run that has most."""
    return range(max(len(run.policies) for run in runs))


def _asked(runs: Sequence[Results]) -> int:
    """Self-edits of one policy on the held-out tasks of a seed."""
    return max((_written(run, 0).total() for run in runs), default=0)


def _written(run: Results, number: int) -> Counter[str]:
    """How often a policy writes each self-edit on the held-out tasks."""
    return Counter(trial.completion for trial in self_edits(run, number, TrialPhase.HELD_OUT))


def _rejected(number: int, run: Results) -> Scores:
    """The share of a policy's self-edits that are rejected, by held-out task."""
    found: dict[str, list[float]] = {}
    for trial in self_edits(run, number, TrialPhase.HELD_OUT):
        found.setdefault(trial.context_id, []).append(trial.state is TrialState.REJECTED)
    return {task: fmean(shares) for task, shares in found.items()}


def entropy(counts: Mapping[str, int]) -> float:
    """Of the empirical distribution, in bits: 0 if all are the same, log2(n) if all n differ."""
    total = sum(counts.values())
    return sum(count / total * log2(total / count) for count in counts.values())


def itself(number: int, run: Results) -> Scores:
    """Accuracy of a policy without any adapter on the held-out tasks: what is left of what the base model can do."""
    held_out = [trial for trial in run.trials if trial.phase is TrialPhase.HELD_OUT]
    return {context: score for (policy, context), score in baselines(held_out).items() if policy == str(number)}


def plots(runs: Sequence[Results], folder: Path) -> None:
    """By round, a colour a variant: accuracy on the tasks of all seeds; entropy by seed (thin), and its mean."""
    with plotted(folder / PLOT) as axes:
        for place, (label, own) in enumerate(_variants(runs)):
            found = [
                (number + 0.05 * (place - 1), estimate)
                for number in _numbers(own)
                if (estimate := mean_estimate(list(pooled(own, partial(of_policy, number)).values())))
            ]
            colour = f"C{place}"
            axes.plot([x for x, _ in found], [one.mean for _, one in found], color=colour, label=label)
            for x, one in found:
                axes.errorbar(x, one.mean, yerr=bars(one), fmt="o", markersize=4, capsize=3, color=colour)
        axes.set(xlabel="round", ylabel="accuracy on the held-out tasks", ylim=(0, None))
        axes.legend(fontsize=9, loc="upper left")
    with plotted(folder / ENTROPY_PLOT) as axes:
        for place, (label, own) in enumerate(_variants(runs)):
            curves = [
                [entropy(counts) for number in range(len(run.policies)) if (counts := _written(run, number))]
                for run in own
            ]
            for curve in curves:
                axes.plot(curve, color=f"C{place}", linewidth=0.7, alpha=0.6)
            means = [fmean(column) for column in zip(*curves, strict=False)]
            axes.plot(means, marker="o", color=f"C{place}", label=label)
        axes.set(xlabel="round", ylabel="entropy of the self-edits, bits", ylim=(0, None))
        axes.legend(fontsize=9, loc="upper right")


def _top(run: Results) -> Scores:
    """The scores of the policy with the highest mean."""
    return max((scores for scores in run.policies if scores), key=lambda scores: fmean(scores.values()))
