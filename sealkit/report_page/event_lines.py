"""Events of a run as lines for people."""

from __future__ import annotations

from sealkit.report_page.labels import share
from sealkit.resources import (
    Editor,
    Event,
    GateState,
    PolicyTrained,
    RoundFinished,
    RunStateChanged,
    RunWaiting,
    StageStarted,
    Trial,
    TrialState,
)

_STAGES = {
    "e-step": "sampling self-edits and trying them",
    "m-step": "training the policy on what helped",
    "comparison": "comparing the new policy with the best so far on held-out contexts",
    "commit": "committing what helped, and measuring what it forgot",
    "scoring the last policy": "scoring the last policy on held-out contexts",
}


def headline(event: Event) -> str:
    """A line for a milestone; empty for events that only advance the bar."""
    kind = event.kind
    if isinstance(kind, StageStarted):
        what = _STAGES.get(kind.stage.lower(), kind.stage)
        # Shown from 1, stored from 0.
        return f"round {kind.round + 1} of {event.progress.rounds_total}: {what}"
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


def trial_line(trial: Trial) -> str:
    """A trial in one line."""
    who = "the passage alone" if trial.editor == Editor.PASSAGE_ONLY else f"self-edit {trial.index}"
    if trial.editor not in (Editor.PASSAGE_ONLY, Editor.POLICY):
        who += f" by {trial.editor}"
    if trial.state is TrialState.REJECTED:
        return f"{trial.context_id}, {who}: rejected ({trial.rejection})"
    if trial.error:
        return f"{trial.context_id}, {who}: {trial.state.value} ({trial.error.message})"
    return (
        f"{trial.context_id}, {who}: accuracy {share(trial.accuracy)} "
        f"({share(trial.baseline_accuracy)} without an adapter)"
    )
