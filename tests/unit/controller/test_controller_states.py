"""The table of states in docs/architecture.md is the code's, and the record makes no other move."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.db import runs, states
from sealkit.errors import SealError
from sealkit.resources import RunState, TrialState
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System

DOCS = Path(__file__).parents[3] / "docs" / "architecture.md"


@pytest.mark.parametrize("moves", [states.RUN, states.ROUND, states.TRIAL], ids=["run", "round", "trial"])
def test_the_documentation_shows_the_codes_moves(moves: tuple[states.Move, ...]) -> None:
    assert states.table(moves) in DOCS.read_text(encoding="utf-8")


def test_every_state_is_reached_and_left_unless_it_is_an_end() -> None:
    for moves, every, start, ends in (
        (states.RUN, set(RunState), {RunState.QUEUED}, set()),
        (states.TRIAL, set(TrialState), {TrialState.QUEUED}, {TrialState.SUCCEEDED, TrialState.REJECTED}),
        (states.ROUND, set(states.RoundState), {states.RoundState.PLANNED}, {states.RoundState.DONE}),
    ):
        assert {move.target for move in moves} | start == every
        assert {source for move in moves for source in move.sources} == every - ends


@pytest.mark.parametrize("state", list(RunState))
async def test_what_a_caller_asks_of_a_run_does_what_the_table_says(system: System, state: RunState) -> None:
    """Pause, cancel and resume, in every state: the move of the table, or none."""
    for ask, move in (
        (runs.pause, states.PAUSE_RUN),
        (runs.cancel, states.CANCEL_RUN),
        (runs.resume, states.RESUME_RUN),
    ):
        run = await system.create(request_id=f"{state}-{ask.__name__}")
        run_id = run.name.removeprefix("runs/")
        await system.database.write(
            lambda c, run_id=run_id: c.execute(
                runs.update(runs.runs).where(runs.runs.c.run_id == run_id).values(state=state)
            )
        )
        try:
            after = (await system.database.write(ask, change(run.name))).state
        except SealError:
            after = state
        assert after == (move.target if state in move.sources else state)
