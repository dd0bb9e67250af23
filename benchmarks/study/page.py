"""The tables and plots of docs/results/study.md, from the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from benchmarks.page import bars, difference, figures, plotted, with_section
from benchmarks.study.results import Results, Scores, pooled, self_edits
from sealkit.resources import TrialPhase, TrialState
from sealkit.stats import mean_estimate

LABELS = {"base": "no adapter (in context)", "passage_only": "passage only", "oracle": "oracle"}
ROWS: dict[str, Callable[[Results], Scores]] = {
    "the policy the run ended with": lambda run: run.best,
    "the policy trained last": lambda run: run.last,
    "chosen by the other tasks": Results.chosen_without,
}
"""What is compared with θ_0 and the oracle."""


def page(text: str, runs: Sequence[Results]) -> str:
    """The page with its sections written anew; as it was, if nothing is recorded yet."""
    if not runs:
        return text
    for name, body in {"arc": curve_table(runs), "arc-gain": gain_table(runs), "arc-edits": edit_table(runs)}.items():
        text = with_section(text, name, f"{note(runs)}\n\n{body}" if name == "arc" else body)
    return text


def note(runs: Sequence[Results]) -> str:
    """n, seeds, machine, date and config."""
    about, config = runs[0].about, runs[0].about["config"]
    seeds = ", ".join(str(run.seed) for run in runs)
    unfinished = [str(run.seed) for run in runs if run.about["state"] != "succeeded"]
    seconds = fmean(run.about["report"]["wall_seconds"] for run in runs)
    waiting = f" Not finished: seed {', '.join(unfinished)}." if unfinished else ""
    return (
        f"Seeds {seeds}; {len(runs[0].policies[0])} held-out tasks a seed, {config['held_out']['samples']} self-edits "
        f"of each policy on each; {config['rounds']} rounds of {config['contexts_per_round']} tasks, "
        f"{config['editor']['k']} self-edits on each; m_step.start_from = {config['m_step']['start_from']}, "
        f"selection.rule = {config['selection']['rule']}, gate.held_out = {config['gate']['held_out']}. Means "
        f"over tasks with 95 % intervals. {about['machine']}, shared with other work, {about['date']}; "
        f"{seconds / 60:.0f} minutes a run.{waiting}"
    )


def curve_table(runs: Sequence[Results]) -> str:
    """Every policy's held-out accuracy by seed, and what it is compared with; not adopted ones in brackets."""
    most = max(len(run.policies) for run in runs)
    heads = [*LABELS.values(), *(f"θ_{number}" for number in range(most))]
    lines = [f"| seed | n | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for run in runs:
        cells = [figures(_other(name, run)) for name in LABELS]
        cells += [_policy_cell(run, number) for number in range(most)]
        lines.append(f"| {run.seed} | {len(run.policies[0])} | {' | '.join(cells)} |")
    if len(runs) > 1:
        cells = [figures(pooled(runs, partial(_other, name))) for name in LABELS]
        cells += [figures(pooled(runs, partial(_of, number))) for number in range(most)]
        lines.append(f"| all | {len(pooled(runs, lambda run: run.policies[0]))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gain_table(runs: Sequence[Results]) -> str:
    """What the rounds gained, paired by task."""
    lines = [
        "| seed | policy | accuracy | times θ_0 | minus θ_0 | minus the oracle | minus the policy the run ended with |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [(str(run.seed), [run]) for run in runs] + ([("all", list(runs))] if len(runs) > 1 else [])
    for seed, group in groups:
        first, best = pooled(group, lambda run: run.policies[0]), pooled(group, lambda run: run.best)
        oracle = pooled(group, partial(_other, "oracle"))
        for name, scores in ROWS.items():
            own = pooled(group, scores)
            times = fmean(own.values()) / start if (start := fmean(first.values())) else float("nan")
            cells = [figures(own), f"{times:.1f}", difference(first, own), difference(oracle, own)]
            cells.append("" if own == best else difference(best, own))
            lines.append(f"| {seed} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def edit_table(runs: Sequence[Results]) -> str:
    """What each policy was trained on, and what it writes on the held-out tasks."""
    lines = [
        "| seed | policy | trained on | accuracy in its own round | invalid | distinct | the gate |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row for run in runs for row in _edit_rows(run)]
    return "\n".join(lines)


def _edit_rows(run: Results) -> Iterator[str]:
    for number, policy in enumerate(run.about["policies"]):
        edits = self_edits(run, number, TrialPhase.HELD_OUT)
        if not edits:
            continue
        invalid = sum(trial.state is TrialState.REJECTED for trial in edits)
        own: dict[str, list[float]] = {}
        for trial in self_edits(run, number, TrialPhase.E_STEP):
            score = trial.baseline_accuracy if trial.state is TrialState.REJECTED else trial.accuracy
            if score is not None:
                own.setdefault(trial.context_id, []).append(score)
        gate = "adopted" if run.gates[number].adopted else "not adopted"
        yield (
            f"| {run.seed} | θ_{number} | {policy['examples'] or '–'} | "
            f"{figures({context: fmean(scores) for context, scores in own.items()})} | "
            f"{invalid} of {len(edits)} | {len({trial.completion for trial in edits})} | {gate} |"
        )


def plot(runs: Sequence[Results], file: Path) -> None:
    """The learning curve of each seed; a hollow point was not adopted."""
    with plotted(file) as axes:
        for run in runs:
            points = [
                (number, estimate, run.gates[number].adopted)
                for number, scores in enumerate(run.policies)
                if (estimate := mean_estimate(list(scores.values())))
            ]
            shift = 0.06 * (run.seed - (len(runs) - 1) / 2)
            line = axes.plot(
                [number + shift for number, _, adopted in points if adopted],
                [estimate.mean for _, estimate, adopted in points if adopted],
                label=f"self-edits by θ, seed {run.seed}",
            )[0]
            for number, estimate, adopted in points:
                axes.errorbar(
                    number + shift,
                    estimate.mean,
                    yerr=bars(estimate),
                    fmt="o",
                    capsize=3,
                    color=line.get_color(),
                    markerfacecolor=line.get_color() if adopted else "white",
                )
        for (name, label), style in zip(LABELS.items(), (":", "-.", "--"), strict=True):
            scores = pooled(runs, partial(_other, name))
            if scores:
                axes.axhline(fmean(scores.values()), linestyle=style, color="grey", label=label)
        axes.set(xlabel="round", ylabel="accuracy on the held-out tasks", ylim=(0, 1))
        axes.set_xticks(range(max(len(run.policies) for run in runs)))
        axes.legend(fontsize=8, loc="upper left")


def _policy_cell(run: Results, number: int) -> str:
    cell = figures(_of(number, run))
    return cell if number >= len(run.gates) or run.gates[number].adopted else f"({cell})"


def _other(name: str, run: Results) -> Scores:
    return run.others.get(name, {})


def _of(number: int, run: Results) -> Scores:
    return run.policies[number] if number < len(run.policies) else {}
