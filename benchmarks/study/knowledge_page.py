"""The sections of the table "Knowledge in small", from its records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.page import bars, difference, figures, plotted
from benchmarks.study.knowledge import LABELS, learned
from benchmarks.study.page import all_seeds, head, measured, picture, row
from benchmarks.study.results import Results, Scores, of_arm, of_policy, score
from benchmarks.surrogate import CONTAINED, HEADS, Group, ranked
from sealkit.resources import Editor, TrialPhase, TrialState
from sealkit.stats import mean_estimate

PLOT = "study-knowledge.svg"
OTHERS = {
    "passage_sft": "the passage, SFT, 4,500 tokens",
    "cues_contrast_alone": "the passage and cues, contrast, 4,500 tokens",
    "open_book": "the passage in the prompt (teacher)",
}
"""Methods of `benchmarks.learning` that no policy is part of."""


@dataclass(frozen=True)
class Arm:
    """Scores on the held-out passages by context, and by context: the share of the exam's gold answers in what its
    adapters are trained on, what they lose of the retention suite, and the tokens that they are trained on. Of several
    seeds the means: they have the same held-out passages. `first`: the scores of the θ_0 that it is compared with."""

    label: str
    scores: Scores
    found: Scores = field(default_factory=dict)
    lost: Scores = field(default_factory=dict)
    tokens: Scores = field(default_factory=dict)
    first: Scores = field(default_factory=dict)


def sections(runs: Sequence[Results]) -> dict[str, str]:
    """By name."""
    return {
        "knowledge": f"{note(runs)}\n\n{arm_table(arms(runs))}\n\n{picture('Accuracy by arm', PLOT)}",
        "knowledge-train": train_table(runs),
        "knowledge-rank": rank_table(runs),
    }


def note(runs: Sequence[Results]) -> str:
    """n, seeds, machine, date, config and what difference can be found."""
    held_out = max(len(scores) for run in runs for scores in [*run.policies, *run.others.values()])
    found = "".join(
        f"{LABELS[run.variant].capitalize()}, seed {run.seed}: {power_of(run)}. "
        for run in runs
        if run.about["report"]["power"]
    )
    configs = {run.variant: run.about["config"] for run in runs}
    sizes = "".join(
        f"{LABELS[variant].capitalize()}: {one['rounds']} round of {one['contexts_per_round']} passages, self-edits on "
        f"each: {one['editor']['k']} of the policy{_more_arms(one)}; selection.rule = {one['selection']['rule']}. "
        for variant, one in configs.items()
    )
    return (
        f"smollm2-135m-instruct; seeds {all_seeds(runs)}; {held_out} held-out passages, the same with each seed. "
        f"{sizes}The whole config is in each record. Means over passages with 95 % intervals. "
        f"{found}{measured(runs, LABELS)}"
    )


def _more_arms(config: Mapping[str, Any]) -> str:
    others = [arm for arm in config["editor"]["arms"] if arm != Editor.POLICY]
    return "".join(f", one of the arm `{arm}`" for arm in others)


def power_of(run: Results) -> str:
    """What difference of two policies the run can show."""
    power = run.about["report"]["power"]
    return (
        f"{power['contexts']} passages × {power['samples']} show a difference of two policies of "
        f"{power['detectable']:.2f} with 80 % probability, its standard deviation over passages being "
        f"{power['deviation']:.2f}{'' if power['measured'] else ' (assumed)'}"
    )


def arms(runs: Sequence[Results]) -> list[Arm]:
    """What is compared on the held-out passages."""
    others = [Arm(label, learned(way)) for way, label in OTHERS.items()]
    found = [Arm("no adapter", _mean(runs, partial(of_arm, "base"))), *others]
    for variant, label in LABELS.items():
        own = [run for run in runs if run.variant == variant]
        first = _mean(own, partial(of_policy, 0))
        found += [
            _arm(f"θ_{number}, {label}", own, partial(of_policy, number), Editor.POLICY, str(number), first)
            for number in range(max((len(run.policies) for run in own), default=0))
        ]
        asked = f"the exam's own questions, {label.partition(',')[0]}"
        found.append(_arm(asked, own, partial(of_arm, "exam"), "exam", "0", first))
    return [arm for arm in found if arm.scores]


def arm_table(found: Sequence[Arm]) -> str:
    """The arms, and their differences, paired by passage, to the passage by SFT and to θ_0 of the same setting."""
    passage = learned("passage_sft")
    heads = ["arm", "passages", "accuracy", "minus the passage, SFT", "minus θ_0", "gold answers in the training text"]
    lines = head([*heads, "retention lost", "trained tokens"])
    for arm in found:
        cells = [arm.label, str(len(arm.scores)), figures(arm.scores)]
        cells += ["–" if arm.scores == rival else difference(rival, arm.scores) for rival in (passage, arm.first)]
        tokens = f"{fmean(arm.tokens.values()):,.0f}" if arm.tokens else "–"
        lines.append(row(*cells, figures(arm.found), figures(arm.lost, low=-1.0), tokens))
    return "\n".join(lines)


def train_table(runs: Sequence[Results]) -> str:
    """By run: what a choice among the self-edits of a passage has to choose from, what was kept, and what came of
    it."""
    heads = ["the run", "seed", "passages", "self-edits, mean", "best of a group", "best minus mean", "rejected"]
    lines = head([*heads, "kept", "θ_0", "θ_1", "θ_1 − θ_0"])
    for run in sorted(runs, key=lambda run: list(LABELS).index(run.variant)):
        lines.append(_run(run))
    return "\n".join(lines)


def rank_table(runs: Sequence[Results]) -> str:
    """Whether the gold answers in a self-edit's answers rank the self-edits of a passage as the trained reward does."""
    own: dict[tuple[str, int, str, str], list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        for values, trial in zip(run.rows, run.trials, strict=True):
            if trial.editor == Editor.POLICY and values["found"] is not None and trial.accuracy is not None:
                own[trial.phase.value, run.seed, run.variant, trial.context_id].append(
                    (values["found"], trial.accuracy)
                )
    groups: list[Group] = [*own.values()]
    return "\n".join([*head(HEADS), ranked(CONTAINED, groups, [context for *_, context in own])])


def plots(runs: Sequence[Results], folder: Path) -> None:
    """The accuracy of each arm with its interval."""
    found = arms(runs)[::-1]
    with plotted(folder / PLOT) as axes:
        for place, arm in enumerate(found):
            if estimate := mean_estimate(list(arm.scores.values())):
                axes.errorbar(estimate.mean, place, xerr=bars(estimate), fmt="o", capsize=3, color="C0")
        axes.set_yticks(range(len(found)), [f"{arm.label} (n = {len(arm.scores)})" for arm in found])
        axes.set(xlabel="accuracy on the held-out passages", xlim=(0, 1))


def _run(run: Results) -> str:
    here = [t for t in run.trials if t.phase is TrialPhase.E_STEP]
    edits = [t for t in here if t.editor == Editor.POLICY]
    tried: dict[str, list[float]] = defaultdict(list)
    for trial in edits:
        if (value := score(trial)) is not None:
            tried[trial.context_id].append(value)
    mean = {context: fmean(values) for context, values in tried.items()}
    best = {context: max(values) for context, values in tried.items() if len(values) > 1}
    kept = [trial for trial in here if trial.selected]
    by_others = sum(trial.editor != Editor.POLICY for trial in kept)
    first, last = of_policy(0, run), of_policy(1, run)
    return row(
        LABELS[run.variant],
        str(run.seed),
        str(len(tried)),
        figures(mean),
        figures(best),
        difference(mean, best),
        f"{sum(trial.state is TrialState.REJECTED for trial in edits)} of {len(edits)}",
        f"{len(kept)} on {len({trial.context_id for trial in kept})} passages"
        + (f", {by_others} of the exam" if by_others else ""),
        figures(first),
        figures(last),
        difference(first, last),
    )


def _arm(
    label: str, runs: Sequence[Results], scores: Callable[[Results], Scores], editor: str, policy: str, first: Scores
) -> Arm:
    found, lost, tokens = (_mean(runs, partial(of, editor, policy)) for of in (_found, _lost, _tokens))
    return Arm(label, _mean(runs, scores), found, lost, tokens, first)


def _found(editor: str, policy: str, run: Results) -> Scores:
    return _of_trials(run, editor, policy, lambda values: values["found"] or 0.0)


def _lost(editor: str, policy: str, run: Results) -> Scores:
    return _of_trials(run, editor, policy, lambda values: values["forgetting"])


def _tokens(editor: str, policy: str, run: Results) -> Scores:
    """Without adapters that had been trained before, in another run."""
    return _of_trials(run, editor, policy, lambda values: values["usage"].get("train", [0, 0, 0])[2] or None)


def _of_trials(run: Results, editor: str, policy: str, value: Callable[[Mapping[str, Any]], float | None]) -> Scores:
    """A value of held-out trials by context, the mean over its trials; of those that have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for values, trial in zip(run.rows, run.trials, strict=True):
        arm = (trial.phase, trial.editor, trial.policy) == (TrialPhase.HELD_OUT, editor, policy)
        if arm and (got := value(values)) is not None:
            found[trial.context_id].append(got)
    return {context: fmean(own) for context, own in found.items()}


def _mean(runs: Sequence[Results], scores: Callable[[Results], Scores]) -> Scores:
    """By context, the mean over the runs."""
    found: dict[str, list[float]] = defaultdict(list)
    for context, value in _all(runs, scores):
        found[context].append(value)
    return {context: fmean(values) for context, values in found.items()}


def _all(runs: Sequence[Results], scores: Callable[[Results], Scores]) -> Iterator[tuple[str, float]]:
    for run in runs:
        yield from scores(run).items()
