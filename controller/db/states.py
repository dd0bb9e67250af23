"""The states of runs, rounds and trials, and every transition between them.

A write to the database names a transition and changes only rows in one of its sources. docs/architecture.md shows these
tables; a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sealkit.resources import RunState, TrialState


class RoundState(StrEnum):
    """State of a round. It has no column: a round without a row is planned, one with `next_policy` is done."""

    PLANNED = "planned"
    OPEN = "open"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Move:
    """From any of `sources` to `target`."""

    sources: tuple[StrEnum, ...]
    target: StrEnum
    when: str


_QUEUED, _RUNNING, _PAUSED = RunState.QUEUED, RunState.RUNNING, RunState.PAUSED
_SUCCEEDED, _FAILED, _CANCELLED = RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED

TAKE_RUN = Move((_QUEUED, _RUNNING), _RUNNING, "a worker starts to drive it; also after its last worker died")
SUCCEED_RUN = Move((_RUNNING,), _SUCCEEDED, "all rounds are done")
FAIL_RUN = Move((_RUNNING,), _FAILED, "an error that retrying does not fix")
PAUSE_RUN = Move(
    (_QUEUED, _RUNNING), _PAUSED, "PauseRun; or a budget (`BUDGET_EXHAUSTED`) or quota (`QUOTA_EXCEEDED`) is used up"
)
CANCEL_RUN = Move((_QUEUED, _RUNNING, _PAUSED), _CANCELLED, "CancelRun")
RESUME_RUN = Move((_PAUSED, _FAILED, _CANCELLED), _QUEUED, "ResumeRun; refused while the budget or a quota is used up")
REOPEN_RUN = Move((_SUCCEEDED, _FAILED, _CANCELLED), _QUEUED, "RetryTrials, if one of its trials can still count")

RUN = (TAKE_RUN, SUCCEED_RUN, FAIL_RUN, PAUSE_RUN, CANCEL_RUN, RESUME_RUN, REOPEN_RUN)

OPEN_ROUND = Move((RoundState.PLANNED,), RoundState.OPEN, "its E-step starts; the row is written")
CLOSE_ROUND = Move((RoundState.OPEN,), RoundState.DONE, "its M-step is done, or nothing was kept")

ROUND = (OPEN_ROUND, CLOSE_ROUND)

TAKE_TRIAL = Move(
    (TrialState.QUEUED, TrialState.RUNNING),
    TrialState.RUNNING,
    "a worker takes it (the token is incremented), if its run is running and has budget left; also from a dead worker",
)
SUCCEED_TRIAL = Move((TrialState.RUNNING,), TrialState.SUCCEEDED, "it has a score")
REJECT_TRIAL = Move((TrialState.RUNNING,), TrialState.REJECTED, "the self-edit was not usable")
FAIL_TRIAL = Move((TrialState.RUNNING,), TrialState.FAILED, "an error, or `DELIVERIES_EXHAUSTED` (a dead letter)")
GIVE_BACK_TRIAL = Move((TrialState.RUNNING,), TrialState.QUEUED, "its worker stopped or died, or its adapter was lost")
CANCEL_TRIAL = Move((TrialState.QUEUED, TrialState.RUNNING), TrialState.CANCELLED, "its run ended before it")
RETRY_TRIAL = Move((TrialState.FAILED, TrialState.CANCELLED), TrialState.QUEUED, "ResumeRun or RetryTrials")

TRIAL = (TAKE_TRIAL, SUCCEED_TRIAL, REJECT_TRIAL, FAIL_TRIAL, GIVE_BACK_TRIAL, CANCEL_TRIAL, RETRY_TRIAL)


def table(moves: Sequence[Move]) -> str:
    """The transitions as a Markdown table."""
    rows = [f"| {', '.join(move.sources)} | {move.target} | {move.when} |" for move in moves]
    return "\n".join(["| from | to | when |", "|---|---|---|", *rows])
