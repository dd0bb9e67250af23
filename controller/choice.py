"""Which self-edits of a group teach the policy: the config's selection rule, then the gates for what it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.selection import PairedVerdicts, best_of_k, positive, significant
from sealkit.config import SelectionConfig
from sealkit.resources import Trial, TrialState
from sealkit.telemetry import SELECTED
from sealkit.types import Outcome, Verdict

BothVerdicts = tuple[tuple[Verdict, ...], tuple[Verdict, ...]]

_RIGHT = {Outcome.CORRECT: True, Outcome.INCORRECT: False, Outcome.UNGRADED: None}


@dataclass(frozen=True, slots=True)
class Group:
    """The trials of one context in one round, ended, in the order of their index; `passage` is its passage-only one."""

    edits: Sequence[Trial]
    passage: Trial | None


def chosen(group: Group, config: SelectionConfig, verdicts: dict[str, BothVerdicts]) -> list[Trial]:
    """The trials of a group that are kept. `verdicts` by trial name, a trial's and its baseline's, are needed by the
    `significant` rule alone. Only a trial with a reward is ever kept: none that was rejected, failed, cancelled or
    stopped early; and none of an arm that is there to compare."""
    edits = [trial for trial in group.edits if trial.editor in config.learn_from]
    rewards = [trial.reward if trial.state is TrialState.SUCCEEDED else None for trial in edits]
    if config.rule == "best_of_k":
        indices = best_of_k(rewards)
    elif config.rule == "positive":
        indices = positive(rewards)
    else:
        pairs = [
            None if reward is None else _paired(*verdicts[trial.name])
            for trial, reward in zip(edits, rewards, strict=True)
        ]
        indices = significant(pairs, alpha=config.significance)
    kept = [edits[i] for i in indices if passes(edits[i], group.passage, config)]
    SELECTED.labels("kept").inc(len(kept))
    SELECTED.labels("dropped").inc(len(edits) - len(kept))
    return kept


def passes(trial: Trial, passage: Trial | None, config: SelectionConfig) -> bool:
    """Whether a trial does better than the baseline and than training on the raw context, where the config asks for
    that. A passage-only trial without a reward cannot be beaten: better has to be shown."""
    if config.must_gain and not (trial.accuracy or 0.0) > (trial.baseline_accuracy or 0.0):
        return False
    if not config.must_beat_passage_only:
        return True
    beaten = passage.reward if passage is not None else None
    return beaten is not None and trial.reward is not None and trial.reward > beaten


def _paired(adapter: tuple[Verdict, ...], baseline: tuple[Verdict, ...]) -> PairedVerdicts:
    return PairedVerdicts(
        adapter=tuple(_RIGHT[verdict.outcome] for verdict in adapter),
        baseline=tuple(_RIGHT[verdict.outcome] for verdict in baseline),
    )
