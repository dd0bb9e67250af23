"""Labels, legends and durations as the command line and the report's page show them."""

from __future__ import annotations

from collections.abc import Mapping

from sealkit.resources import GateState

STAGES: Mapping[str, str] = {
    "generate": "generation",
    "teach": "teaching",
    "train": "training",
    "evaluate": "evaluation",
    "m_step": "M-steps",
    "unsplit": "all",
}
"""By the key of a stage."""
SPLITS: Mapping[str, str] = {
    "train": "Contexts that the policy learns from",
    "held_out": "Held-out contexts, never trained on",
}
GATES: Mapping[GateState, str] = {
    GateState.PASSED: "passed the gate",
    GateState.REFUSED: "refused by the gate",
    GateState.PENDING: "not yet compared",
}
LEGEND = (
    "Accuracy: the share of questions answered right without seeing the text, averaged over contexts (n), with its "
    "95 % interval. No adapter: the model as it is. Passage only: trained on the text itself. Self-edits: trained "
    "on what the model wrote about the text; θ_0 wrote before, θ_1, θ_2 … after learning from what helped. Best of k "
    "is chosen by these same questions, so it is an upper bound. Each round has its own contexts: compare "
    "policies on the held-out ones."
)
CONTINUAL_LEGEND = (
    "One row after each context: accuracy on every context at that time; “start” is before the first. BWT: change in "
    "accuracy on earlier contexts from just after learning to the end; forgetting: drop from their best accuracy."
)


def duration(seconds: float) -> str:
    """`48 s`, `3:05`, `1:02:03`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def share(value: float | None) -> str:
    """An accuracy or the like, in [0, 1]; a dash where it was not measured."""
    return "–" if value is None else f"{value:.2f}"


def rough_duration(seconds: float) -> str:
    """A duration that is not known exactly: `40 s`, `9 min`, `1 h 20 min`, `2 days 3 h`."""
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} day{'s' * (days != 1)} {hours} h" if hours else f"{days} day{'s' * (days != 1)}"
