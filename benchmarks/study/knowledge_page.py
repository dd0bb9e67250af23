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
from benchmarks.study.knowledge import LABELS, LEARNS, open_book
from benchmarks.study.page import all_seeds, head, measured, picture, row
from benchmarks.study.results import Results, Scores, of_arm, of_policy, score
from benchmarks.surrogate import CONTAINED, HEADS, Group, ranked
from sealkit.resources import Editor, TrialPhase, TrialState
from sealkit.stats import mean_estimate

PLOT = "study-knowledge.svg"


@dataclass(frozen=True)
class Arm:
    """Scores on the held-out passages by context, and by context what its adapters lost of the retention suite and the
    tokens that they were trained on. Of several seeds the means: they have the same held-out passages. `first`: the
    label of the θ_0 that it is compared with."""

    label: str
    scores: Scores
    lost: Scores = field(default_factory=dict)
    tokens: Scores = field(default_factory=dict)
    first: str = "θ_0"


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
        if run.variant in LEARNS and run.about["report"]["power"]
    )
    learned = {run.variant: run.about["config"] for run in runs if run.variant in LEARNS}
    sizes = "".join(
        f"{LABELS[variant].capitalize()}: {one['rounds']} round of {one['contexts_per_round']} passages, self-edits on "
        f"each: {one['editor']['k']} of the policy{_more_arms(one)}; selection.rule = {one['selection']['rule']}. "
        for variant, one in learned.items()
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
    rounds, exam, best_of, alone, exam_alone, taught = ([run for run in runs if run.variant == name] for name in LABELS)
    own, with_exam = "θ_0, questions alone", "θ_0, questions alone, taught"
    found = [
        Arm("no adapter", _mean([*rounds, *alone, *taught], partial(of_arm, "base"))),
        _arm("passage only", rounds, partial(of_arm, Editor.PASSAGE_ONLY), Editor.PASSAGE_ONLY),
        *_policies(rounds, "θ_0"),
        _arm("θ_0, mean of three", best_of, partial(of_policy, 0), Editor.POLICY),
        Arm("θ_0, best of three (chosen by this exam)", _mean(best_of, bests)),
        _arm("the exam's own questions (ceiling)", exam, partial(of_arm, "exam"), "exam"),
        *_policies(alone, own),
        *_policies(taught, with_exam),
        _arm(
            "the exam's own questions, alone",
            [*exam_alone, *taught],
            partial(of_arm, "exam"),
            "exam",
            first=own if alone else with_exam,
        ),
        Arm("the passage in the prompt (teacher)", open_book()),
    ]
    return [arm for arm in found if arm.scores]


def _policies(runs: Sequence[Results], first: str) -> list[Arm]:
    """Each policy of runs whose θ_0 has the label `first`."""
    most = max((len(run.policies) for run in runs), default=0)
    return [
        _arm(first.replace("θ_0", f"θ_{n}"), runs, partial(of_policy, n), Editor.POLICY, str(n), first=first)
        for n in range(most)
    ]


def arm_table(found: Sequence[Arm]) -> str:
    """The arms, and their differences, paired by passage, to passage-only and to θ_0 of the same setting."""
    by_label = {arm.label: arm.scores for arm in found}
    passage = by_label.get("passage only", {})
    heads = ["arm", "passages", "accuracy", "minus passage only", "minus θ_0", "retention lost", "trained tokens"]
    lines = head(heads)
    for arm in found:
        cells = [arm.label, str(len(arm.scores)), figures(arm.scores)]
        first = by_label.get(arm.first, {})
        cells += ["–" if arm.scores is rival else difference(rival, arm.scores) for rival in (passage, first)]
        tokens = f"{fmean(arm.tokens.values()):,.0f}" if arm.tokens else "–"
        lines.append(row(*cells, figures(arm.lost, low=-1.0), tokens))
    return "\n".join(lines)


def train_table(runs: Sequence[Results]) -> str:
    """The E-steps: what a choice among the self-edits of a passage has to choose from, and what was kept."""
    heads = ["the run", "seed", "round", "passages", "no adapter", "passage only", "self-edits, mean"]
    lines = head([*heads, "best of a group", "best minus mean", "rejected", "kept"])
    for run in runs:
        if run.variant in LEARNS:
            lines += [_round(run, number) for number in range(run.about["config"]["rounds"])]
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


def bests(run: Results) -> Scores:
    """The best score of θ_0's self-edits on each held-out passage: an upper bound, not an unbiased estimate."""
    found: dict[str, list[float]] = defaultdict(list)
    for trial in run.trials:
        value = score(trial)
        if trial.phase is TrialPhase.HELD_OUT and trial.editor == Editor.POLICY and value is not None:
            found[trial.context_id].append(value)
    return {context: max(values) for context, values in found.items() if len(values) > 1}


def plots(runs: Sequence[Results], folder: Path) -> None:
    """The accuracy of each arm with its interval."""
    found = arms(runs)[::-1]
    with plotted(folder / PLOT) as axes:
        for place, arm in enumerate(found):
            if estimate := mean_estimate(list(arm.scores.values())):
                axes.errorbar(estimate.mean, place, xerr=bars(estimate), fmt="o", capsize=3, color="C0")
        axes.set_yticks(range(len(found)), [f"{arm.label} (n = {len(arm.scores)})" for arm in found])
        axes.set(xlabel="accuracy on the held-out passages", xlim=(0, 1))


def _round(run: Results, number: int) -> str:
    here = [t for t in run.trials if t.phase is TrialPhase.E_STEP and t.round == number]
    base = {t.context_id: t.baseline_accuracy for t in here if t.baseline_accuracy is not None}
    passage = {t.context_id: t.accuracy for t in here if t.editor == Editor.PASSAGE_ONLY and t.accuracy is not None}
    edits = [t for t in here if t.editor == Editor.POLICY]
    tried: dict[str, list[float]] = defaultdict(list)
    for trial in edits:
        if (value := score(trial)) is not None:
            tried[trial.context_id].append(value)
    mean = {context: fmean(values) for context, values in tried.items()}
    best = {context: max(values) for context, values in tried.items()}
    kept = [trial for trial in here if trial.selected]
    by_others = sum(trial.editor != Editor.POLICY for trial in kept)
    return row(
        LABELS[run.variant],
        str(run.seed),
        str(number + 1),
        str(len(tried)),
        figures(base),
        figures(passage),
        figures(mean),
        figures(best),
        difference(mean, best),
        f"{sum(trial.state is TrialState.REJECTED for trial in edits)} of {len(edits)}",
        f"{len(kept)} on {len({trial.context_id for trial in kept})} passages"
        + (f", {by_others} of another arm" if by_others else ""),
    )


def _arm(
    label: str,
    runs: Sequence[Results],
    scores: Callable[[Results], Scores],
    editor: str,
    policy: str = "0",
    *,
    first: str = "θ_0",
) -> Arm:
    lost, tokens = (_mean(runs, partial(of, editor, policy)) for of in (_lost, _tokens))
    return Arm(label, _mean(runs, scores), lost, tokens, first)


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
