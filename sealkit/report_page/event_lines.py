"""Events of a run in words."""

from __future__ import annotations

from collections.abc import Mapping

from sealkit.report_page.labels import share
from sealkit.resources import (
    Editor,
    Event,
    GateState,
    PolicyTrained,
    RoundFinished,
    RoundStage,
    RunProgress,
    RunStateChanged,
    RunWaiting,
    StageStarted,
    Trial,
    TrialState,
)

_STAGES: Mapping[str, str] = {
    RoundStage.E_STEP: "sampling self-edits and trying them",
    RoundStage.M_STEP: "training the policy on what helped",
    RoundStage.COMPARISON: "comparing the new policy with the best so far on held-out contexts",
    RoundStage.COMMIT: "committing what helped, and measuring what it forgot",
    RoundStage.LAST_POLICY: "scoring the last policy on held-out contexts",
}
"""What happens in a stage of a round, by its name. The stages of a trial are in `labels`."""


def headline(event: Event) -> str:
    """A line for a milestone; empty for events that only advance the bar."""
    kind = event.kind
    if isinstance(kind, StageStarted):
        return f"{round_label(kind, event.progress)}: {stage_label(kind.stage)}"
    if isinstance(kind, PolicyTrained) and kind.policy.gate is GateState.REFUSED:
        return f"round {kind.round + 1}: {kind.policy.name} is refused, the policy stays: {kind.policy.gate_reason}"
    if isinstance(kind, PolicyTrained) and not kind.kept:
        return f"round {kind.round + 1}: nothing helped enough to be kept; the policy stays as it is"
    if isinstance(kind, PolicyTrained):
        score = (
            f", held-out accuracy {share(kind.policy.held_out_accuracy)}"
            if kind.policy.held_out_accuracy is not None
            else ""
        )
        return f"round {kind.round + 1}: {kind.policy.name} trained on {kind.kept} kept self-edits{score}"
    if isinstance(kind, RoundFinished):
        return f"round {kind.round + 1} is done; the policy is now {kind.policy}"
    if isinstance(kind, RunWaiting):
        return f"waiting ({kind.doing}): {kind.error.message}" if kind.error else f"going on ({kind.doing})"
    if isinstance(kind, RunStateChanged) and kind.error:
        return f"the run {kind.state.value}: {kind.error.message}"
    return ""


def stage_label(stage: str) -> str:
    """What happens in a stage."""
    return _STAGES.get(stage, stage)


def round_label(stage: StageStarted, progress: RunProgress) -> str:
    """Which round a stage belongs to: shown from 1, stored from 0."""
    return f"round {stage.round + 1} of {progress.rounds_total}"


def trial_line(trial: Trial) -> str:
    """A trial in one line."""
    if trial.state is TrialState.REJECTED:
        return f"{trial_label(trial)}: rejected ({trial.rejection})"
    if trial.error:
        return f"{trial_label(trial)}: {trial.state.value} ({trial.error.message})"
    return (
        f"{trial_label(trial)}: accuracy {share(trial.accuracy)} ({share(trial.baseline_accuracy)} without an adapter)"
    )


def trial_label(trial: Trial) -> str:
    """Context and editor of a trial."""
    who = "the passage alone" if trial.editor == Editor.PASSAGE_ONLY else f"self-edit {trial.index}"
    if trial.editor not in (Editor.PASSAGE_ONLY, Editor.POLICY):
        who += f" by {trial.editor}"
    return f"{trial.context_id}, {who}"
