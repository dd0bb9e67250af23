"""The table "Model collapse": ARC in small over five rounds, with a filter and without, each policy trained from the
one before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import log2
from pathlib import Path
from statistics import fmean

from benchmarks.page import bars, difference, figures, plotted
from benchmarks.study import arc
from benchmarks.study.experiment import Experiment
from benchmarks.study.page import all_seeds, groups, head, measured, picture, row
from benchmarks.study.results import Results, Scores, of_policy, pooled, self_edits
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
PLOT, ENTROPY_PLOT = "study-collapse.svg", "study-collapse-entropy.svg"
_LINES = {"unfiltered": ":", "solved": "--", "selective": "-"}


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
    most = max(len(run.policies) for run in runs)
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
    """What each variant ended with, against θ_0, against its own best policy and, on the same tasks, against no filter.
    Only runs that have ended."""
    lines = head(["kept", "seed", "ended with", "minus θ_0", "minus its best policy", "minus no filter"])
    ended = [run for run in runs if run.finished]
    for variant, seed, group in groups(ended, LABELS):
        last = pooled(group, lambda run: run.best)
        of_seeds = {run.seed for run in group}
        rival = pooled([r for r in ended if r.variant == "unfiltered" and r.seed in of_seeds], lambda run: run.best)
        cells = [figures(last), difference(pooled(group, partial(of_policy, 0)), last)]
        cells.append(difference(pooled(group, _top), last))
        lines.append(row(LABELS[variant], seed, *cells, "–" if variant == "unfiltered" else difference(rival, last)))
    return "\n".join(lines)


def edit_table(runs: Sequence[Results]) -> str:
    """What each policy was trained on, what it writes on the held-out tasks, and what it can do itself."""
    ordered = sorted(runs, key=lambda run: (list(LABELS).index(run.variant), run.seed))
    heads = ["kept", "seed", "policy", "trained on", "distinct", "entropy, bits", "the most frequent", "rejected"]
    return "\n".join([*head([*heads, "itself, without an adapter"]), *(line for run in ordered for line in _rows(run))])


def _rows(run: Results) -> Iterator[str]:
    for number, about in enumerate(run.about["policies"]):
        edits = self_edits(run, number, TrialPhase.HELD_OUT)
        if not edits:
            continue
        counts = Counter(trial.completion for trial in edits)
        rejected: dict[str, list[float]] = {}
        for trial in edits:
            rejected.setdefault(trial.context_id, []).append(trial.state is TrialState.REJECTED)
        yield row(
            LABELS[run.variant],
            str(run.seed),
            f"θ_{number}",
            str(about["examples"] or "–"),
            f"{len(counts)} of {len(edits)}",
            f"{entropy(counts):.2f}",
            f"{max(counts.values()) / len(edits):.2f}",
            figures({task: fmean(shares) for task, shares in rejected.items()}),
            figures(itself(run, number)),
        )


def entropy(counts: Mapping[str, int]) -> float:
    """Of the empirical distribution, in bits: 0 if all are the same, log2(n) if all n differ."""
    total = sum(counts.values())
    return sum(count / total * log2(total / count) for count in counts.values())


def itself(run: Results, number: int) -> Scores:
    """Accuracy of a policy without any adapter on the held-out tasks: what is left of what the base model can do."""
    held_out = [trial for trial in run.trials if trial.phase is TrialPhase.HELD_OUT]
    return {context: score for (policy, context), score in baselines(held_out).items() if policy == str(number)}


def plots(runs: Sequence[Results], folder: Path) -> None:
    """Accuracy by round, and entropy of the self-edits by round: a colour a seed, a line style a variant."""
    with plotted(folder / PLOT) as axes:
        for place, run in enumerate(runs):
            shift = 0.03 * (place - (len(runs) - 1) / 2)
            found = [
                (number + shift, estimate)
                for number, scores in enumerate(run.policies)
                if (estimate := mean_estimate(list(scores.values())))
            ]
            label, colour = f"{LABELS[run.variant]}, seed {run.seed}", f"C{run.seed}"
            axes.plot(
                [x for x, _ in found], [one.mean for _, one in found], _LINES[run.variant], color=colour, label=label
            )
            for x, one in found:
                axes.errorbar(x, one.mean, yerr=bars(one), fmt="o", markersize=3, capsize=2, color=colour)
        axes.set(xlabel="round", ylabel="accuracy on the held-out tasks", ylim=(0, 1))
        axes.legend(fontsize=8, loc="upper left")
    with plotted(folder / ENTROPY_PLOT) as axes:
        for run in runs:
            written = {
                number: Counter(trial.completion for trial in self_edits(run, number, TrialPhase.HELD_OUT))
                for number in range(len(run.policies))
            }
            points = [(number, entropy(counts)) for number, counts in written.items() if counts]
            label = f"{LABELS[run.variant]}, seed {run.seed}"
            axes.plot(*zip(*points, strict=True), _LINES[run.variant], marker="o", color=f"C{run.seed}", label=label)
        axes.set(xlabel="round", ylabel="entropy of the self-edits, bits", ylim=(0, None))
        axes.legend(fontsize=8, loc="upper right")


def _top(run: Results) -> Scores:
    """The scores of the policy with the highest mean."""
    return max((scores for scores in run.policies if scores), key=lambda scores: fmean(scores.values()))
