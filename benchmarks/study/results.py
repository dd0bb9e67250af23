"""What the records of a table say: scores by held-out context of every policy and of what it is compared with.

Scores are averaged as in a run's report (`controller.rules.scores`): first over the self-edits of a context, with the
baseline for a rejected one, then over contexts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from controller.rules.scores import baselines, policy_scores, scores_of
from sealkit.resources import Editor, GateState, RunState, Trial, TrialPhase, TrialState

Scores = dict[str, float]
"""Score by context id."""
Pooled = dict[tuple[int, str], float]
"""Score by seed and context id: runs with different seeds have different contexts."""


@dataclass(frozen=True)
class Results:
    """One run. `policies`: the score of each, oldest first, by held-out context; empty if it was not scored. `gates`:
    whether the run continued from it. `others`: scores of `base` (no adapter), `passage_only` and the other arms.
    `rows`: the record's values of each trial, in the order of `trials`."""

    about: Mapping[str, Any]
    trials: Sequence[Trial]
    rows: Sequence[Mapping[str, Any]]
    policies: Sequence[Scores]
    gates: Sequence[GateState]
    others: Mapping[str, Scores]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.about["seed"])

    @property
    def variant(self) -> str:
        """The table's setting."""
        return str(self.about["variant"])

    @property
    def finished(self) -> bool:
        """Whether the run succeeded."""
        return bool(self.about["state"] == RunState.SUCCEEDED.value)

    @property
    def best(self) -> Scores:
        """Of the policy that the run ended with."""
        return [scores for scores, gate in zip(self.policies, self.gates, strict=True) if scores and gate.adopted][-1]

    def chosen_without(self) -> Scores:
        """For each context the score, on it, of the policy that is best on all *other* contexts (the latest of equals).
        The best policy's own score is optimistic, because the same contexts chose it; this one is not."""
        scored = [scores for scores in self.policies if scores]
        chosen: Scores = {}
        for context in scored[0]:
            means = [fmean(score for other, score in scores.items() if other != context) for scores in scored]
            chosen[context] = scored[max(range(len(means)), key=lambda i: (means[i], i))][context]
        return chosen


def read(folder: Path, table: str) -> list[Results]:
    """The recorded runs of a table, by seed."""
    found = [results_of(json.loads(file.read_text(encoding="utf-8"))) for file in folder.glob(f"{table}-*.json")]
    return sorted(found, key=lambda results: (results.seed, results.variant))


def results_of(record: Mapping[str, Any]) -> Results:
    """The results of one record."""
    rows = [dict(zip(record["columns"], row, strict=True)) for row in record["trials"]]
    trials = [_trial(row) for row in rows]
    held_out = [trial for trial in trials if trial.phase is TrialPhase.HELD_OUT]
    base = baselines(held_out)
    arms = sorted({trial.editor for trial in held_out} - {Editor.POLICY})
    return Results(
        about={key: value for key, value in record.items() if key != "trials"},
        trials=trials,
        rows=rows,
        policies=[policy_scores(held_out, str(number)).means() for number in range(len(record["policies"]))],
        gates=[GateState(policy["gate"]) for policy in record["policies"]],
        others={
            "base": {context: score for (policy, context), score in base.items() if policy == "0"},
            **{arm: scores_of(held_out, base, arm).means() for arm in arms},
        },
    )


def score(trial: Trial) -> float | None:
    """A self-edit's accuracy, or the baseline if it was rejected; None if it failed."""
    return trial.baseline_accuracy if trial.state is TrialState.REJECTED else trial.accuracy


def by_choice(run: Results, policy: int) -> float:
    """The mean score of what a policy writes on the held-out contexts, if each self-edit scored what the same text
    scored on average in all trials of the run: what is left of its score without the luck of contexts and seeds."""
    known: dict[str, list[float]] = {}
    for trial in run.trials:
        if trial.editor == Editor.POLICY and (found := score(trial)) is not None:
            known.setdefault(trial.completion, []).append(found)
    edits = (trial.completion for trial in self_edits(run, policy, TrialPhase.HELD_OUT))
    return fmean(fmean(known[edit]) for edit in edits if edit in known)


def pooled(runs: Iterable[Results], scores: Callable[[Results], Scores]) -> Pooled:
    """Scores of all runs together."""
    return {(run.seed, context): score for run in runs for context, score in scores(run).items()}


def of_arm(name: str, run: Results) -> Scores:
    """The scores of what is not a policy; empty if the run has none."""
    return run.others.get(name, {})


def of_policy(number: int, run: Results) -> Scores:
    """The scores of a policy; empty if the run has none."""
    return run.policies[number] if number < len(run.policies) else {}


def self_edits(run: Results, policy: int, phase: TrialPhase) -> list[Trial]:
    """The self-edits that a policy wrote in one phase."""
    own = (trial for trial in run.trials if trial.editor == Editor.POLICY and trial.phase is phase)
    return [trial for trial in own if trial.policy == str(policy)]


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(
        name="",
        round=row["round"],
        state=TrialState(row["state"]),
        phase=TrialPhase(row["phase"]),
        context_id=row["context"],
        editor=row["editor"],
        index=row["index"],
        policy=str(row["policy"]),
        completion=row["edit"],
        accuracy=row["accuracy"],
        baseline_accuracy=row["baseline"],
        selected=row["selected"],
        create_time=datetime.fromtimestamp(0, UTC),
    )
