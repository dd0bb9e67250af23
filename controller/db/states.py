"""The states of runs, rounds and trials, and every move between them: once, here.

Writes to the record name a move and touch only rows in one of its sources; docs/architecture.md shows these tables, and
a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sealkit.resources import RunState, TrialState


class RoundState(StrEnum):
    """Where a round is. It has no column: a round without a row is planned, one with `next_policy` is done."""

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

TAKE_RUN = Move((_QUEUED, _RUNNING), _RUNNING, "a worker begins to drive it; also where the worker before is dead")
SUCCEED_RUN = Move((_RUNNING,), _SUCCEEDED, "all rounds are done")
FAIL_RUN = Move((_RUNNING,), _FAILED, "an error that waiting does not mend")
PAUSE_RUN = Move(
    (_QUEUED, _RUNNING), _PAUSED, "PauseRun; or a budget (`BUDGET_EXHAUSTED`) or quota (`QUOTA_EXCEEDED`) is spent"
)
CANCEL_RUN = Move((_QUEUED, _RUNNING, _PAUSED), _CANCELLED, "CancelRun")
RESUME_RUN = Move((_PAUSED, _FAILED, _CANCELLED), _QUEUED, "ResumeRun; refused while the budget or a quota is spent")
REOPEN_RUN = Move((_SUCCEEDED, _FAILED, _CANCELLED), _QUEUED, "RetryTrials, where a trial of it can still count")

RUN = (TAKE_RUN, SUCCEED_RUN, FAIL_RUN, PAUSE_RUN, CANCEL_RUN, RESUME_RUN, REOPEN_RUN)

OPEN_ROUND = Move((RoundState.PLANNED,), RoundState.OPEN, "its E-step begins; the row is written")
CLOSE_ROUND = Move((RoundState.OPEN,), RoundState.DONE, "its M-step is done, or nothing was kept")

ROUND = (OPEN_ROUND, CLOSE_ROUND)

TAKE_TRIAL = Move(
    (TrialState.QUEUED, TrialState.RUNNING),
    TrialState.RUNNING,
    "a worker takes it (the token counts up), where its run is running and has budget left; also from a dead worker",
)
SUCCEED_TRIAL = Move((TrialState.RUNNING,), TrialState.SUCCEEDED, "it has a score")
REJECT_TRIAL = Move((TrialState.RUNNING,), TrialState.REJECTED, "the self-edit was not usable")
FAIL_TRIAL = Move((TrialState.RUNNING,), TrialState.FAILED, "an error, or `DELIVERIES_EXHAUSTED` (a dead letter)")
GIVE_BACK_TRIAL = Move((TrialState.RUNNING,), TrialState.QUEUED, "its worker stopped or died, or its adapter got lost")
CANCEL_TRIAL = Move((TrialState.QUEUED, TrialState.RUNNING), TrialState.CANCELLED, "its run ends without it")
RETRY_TRIAL = Move((TrialState.FAILED, TrialState.CANCELLED), TrialState.QUEUED, "ResumeRun or RetryTrials")

TRIAL = (TAKE_TRIAL, SUCCEED_TRIAL, REJECT_TRIAL, FAIL_TRIAL, GIVE_BACK_TRIAL, CANCEL_TRIAL, RETRY_TRIAL)


def table(moves: Sequence[Move]) -> str:
    """The moves as a Markdown table."""
    rows = [f"| {', '.join(move.sources)} | {move.target} | {move.when} |" for move in moves]
    return "\n".join(["| from | to | when |", "|---|---|---|", *rows])
