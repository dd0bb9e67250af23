"""The sections of the table "ARC in small", from its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.page import bars, difference, figures, plotted
from benchmarks.study.noise import components, resampled, tasks_of
from benchmarks.study.page import all_seeds, groups, head, measured, row, seeds_label
from benchmarks.study.results import Pooled, Results, by_choice, of_arm, of_policy, pooled, score, self_edits
from sealkit.resources import TrialPhase, TrialState
from sealkit.stats import mean_estimate

LABELS = {"base": "no adapter (in context)", "passage_only": "passage only", "oracle": "oracle"}
VARIANTS = {"selective": "selective", "keep_best": "keeps the best", "always_next": "always the next"}
COMPARED = (("selective", "keep_best"), ("keep_best", "always_next"))
_LINES = {"selective": "-", "keep_best": "--", "always_next": ":"}


def sections(runs: Sequence[Results]) -> dict[str, str]:
    """By name."""
    return {
        "arc": f"{note(runs)}\n\n{curve_table(runs)}",
        "arc-gain": gain_table(runs),
        "arc-gate": gate_table(runs),
        "arc-edits": edit_table(runs),
        "arc-noise": noise_table(runs),
    }


def note(runs: Sequence[Results]) -> str:
    """n, seeds, machine, date and config."""
    config = runs[0].about["config"]
    rounds = " or ".join(sorted({str(run.about["config"]["rounds"]) for run in runs}))
    return (
        f"Seeds {all_seeds(runs)}; {len(runs[0].policies[0])} held-out tasks a seed, {config['held_out']['samples']} "
        f"self-edits of each policy on each; {rounds} rounds of {config['contexts_per_round']} tasks, "
        f"{config['editor']['k']} self-edits on each; m_step.start_from = {config['m_step']['start_from']}, "
        f"selection.rule = {config['selection']['rule']}; the whole config is in each record. Means over tasks with "
        f"95 % intervals. {measured(runs, VARIANTS)}"
    )


def curve_table(runs: Sequence[Results]) -> str:
    """Every policy's held-out accuracy by run, and what it is compared with; not adopted ones in brackets."""
    most = max(len(run.policies) for run in runs)
    heads = ["the run", "seed", "n", *LABELS.values(), *(f"θ_{number}" for number in range(most))]
    lines = head(heads)
    for variant, seed, group in groups(runs, VARIANTS):
        own = [figures(pooled(group, partial(of_arm, name))) for name in LABELS]
        for number in range(most):
            cell = figures(pooled(group, partial(of_policy, number)))
            refused = len(group) == 1 and number < len(group[0].gates) and not group[0].gates[number].adopted
            own.append(f"({cell})" if refused else cell)
        lines.append(row(VARIANTS[variant], seed, str(len(_first(group))), *own))
    return "\n".join(lines)


def gain_table(runs: Sequence[Results]) -> str:
    """What the rounds gained, paired by task."""
    heads = ["the run", "seed", "ended with", "times θ_0", "minus θ_0", "minus the oracle"]
    lines = head([*heads, "chosen by the other tasks, minus θ_0"])
    for variant, seed, group in groups(runs, VARIANTS):
        first, best = _first(group), pooled(group, lambda run: run.best)
        start = fmean(first.values())
        cells = [figures(best), f"{fmean(best.values()) / start:.1f}" if start else "–", difference(first, best)]
        cells.append(difference(pooled(group, partial(of_arm, "oracle")), best))
        chosen = difference(first, pooled(group, Results.chosen_without)) if variant != "always_next" else "–"
        lines.append(row(VARIANTS[variant], seed, *cells, chosen))
    return "\n".join(lines)


def gate_table(runs: Sequence[Results]) -> str:
    """Two variants on the same tasks: what they ended with, paired by task. Only runs that have ended."""
    lines = head(["compared", "seed", "the first ended with", "the second ended with", "difference"])
    for pair in COMPARED:
        first, second = ({run.seed: run for run in runs if run.variant == name and run.finished} for name in pair)
        both, label = sorted(first.keys() & second.keys()), " and ".join(VARIANTS[name] for name in pair)
        for seeds in [*([seed] for seed in both), *([both] if len(both) > 1 else [])]:
            one, other = (pooled((of[seed] for seed in seeds), lambda run: run.best) for of in (first, second))
            lines.append(row(label, seeds_label(seeds), figures(one), figures(other), difference(other, one)))
    return "\n".join(lines)


def edit_table(runs: Sequence[Results]) -> str:
    """What each policy was trained on, and what it writes on the held-out tasks."""
    heads = ["the run", "seed", "policy", "trained on", "accuracy in E-steps", "invalid", "distinct", "by its choices"]
    return "\n".join([*head(heads), *(line for run in runs for line in _edit_rows(run))])


def _edit_rows(run: Results) -> Iterator[str]:
    for number, policy in enumerate(run.about["policies"]):
        edits = self_edits(run, number, TrialPhase.HELD_OUT)
        if not edits:
            continue
        invalid = sum(trial.state is TrialState.REJECTED for trial in edits)
        tried: dict[tuple[int, str], list[float]] = {}
        for trial in self_edits(run, number, TrialPhase.E_STEP):
            if (found := score(trial)) is not None:
                tried.setdefault((trial.round, trial.context_id), []).append(found)
        yield row(
            VARIANTS[run.variant],
            str(run.seed),
            f"θ_{number}",
            str(policy["examples"] or "–"),
            figures({place: fmean(scores) for place, scores in tried.items()}),
            f"{invalid} of {len(edits)}",
            str(len({trial.completion for trial in edits})),
            f"{by_choice(run, number):.3f}",
        )


def noise_table(runs: Sequence[Results]) -> str:
    """Where the variance of a score comes from, and the standard error of a policy's mean that follows."""
    sizes = ((24, 4), (48, 2), (24, 8))
    heads = ["self-edits of", "tasks", "task", "self-edit", "training seed"]
    lines = head([*heads, *(f"error of {tasks} × {samples}" for tasks, samples in sizes)])
    by_policy = [(number == "0", tasks) for run in runs for number, tasks in tasks_of(run).items()]
    for label, first in (("θ_0", True), ("later policies", False)):
        policies = [tasks for is_first, tasks in by_policy if is_first is first]
        found, samples = components(policies), [one.shares for one in resampled(policies)]
        bounds = zip(found.shares, *np.nanpercentile(samples, (2.5, 97.5), axis=0), strict=True)
        lines.append(
            row(
                label,
                str(sum(map(len, policies))),
                *(f"{share:.2f} [{low:.2f}, {high:.2f}]" for share, low, high in bounds),
                *(f"{found.error_of_mean(*size):.3f}" for size in sizes),
            )
        )
    return "\n".join(lines)


def plots(runs: Sequence[Results], folder: Path) -> None:
    """The learning curve of each run: a colour a seed, a line style a variant, hollow if not adopted."""
    with plotted(folder / "study-arc.svg") as axes:
        for place, run in enumerate(runs):
            shift, colour = 0.04 * (place - (len(runs) - 1) / 2), f"C{run.seed}"
            points = [
                (number + shift, estimate, run.gates[number].adopted)
                for number, scores in enumerate(run.policies)
                if (estimate := mean_estimate(list(scores.values())))
            ]
            adopted = [(x, estimate.mean) for x, estimate, is_in in points if is_in]
            label = f"{VARIANTS[run.variant]}, seed {run.seed}"
            axes.plot(*zip(*adopted, strict=True), _LINES[run.variant], color=colour, label=label)
            for x, estimate, is_in in points:
                fill = colour if is_in else "white"
                axes.errorbar(
                    x, estimate.mean, yerr=bars(estimate), fmt="o", capsize=3, color=colour, markerfacecolor=fill
                )
        for (name, label), style in zip(LABELS.items(), (":", "-.", (0, (6, 2))), strict=True):
            if scores := pooled(runs, partial(of_arm, name)):
                axes.axhline(fmean(scores.values()), linestyle=style, color="grey", label=label)
        axes.set(xlabel="round", ylabel="accuracy on the held-out tasks", ylim=(0, 1))
        axes.set_xticks(range(max(len(run.policies) for run in runs)))
        axes.legend(fontsize=8, loc="upper left")


def _first(group: Sequence[Results]) -> Pooled:
    return pooled(group, partial(of_policy, 0))
