"""`seal runs pause|resume` and `seal trials retry|list --state`: what they ask of the controller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from seal_cli.commands import runs, trials
from sealkit.errors import InvalidInput
from sealkit.resources import Budget, Fault, Run, RunState, Trial, TrialPhase, TrialState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(name="runs/r", display_name="r", state=RunState.QUEUED, config={}, create_time=NOW)
DEAD = Trial(
    round=0,
    name="runs/r/rounds/0/trials/c-0", state=TrialState.FAILED, phase=TrialPhase.E_STEP, context_id="c",
    editor="policy", index=0, policy="policies/r-0", create_time=NOW,
    error=Fault(code=10, reason="DELIVERIES_EXHAUSTED", message="handed out 8 times"),
)  # fmt: skip


class FakeClient:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def pause_run(self, name: str) -> Run:
        self.asked.append(("pause", name))
        return RUN.model_copy(update={"state": RunState.PAUSED})

    def resume_run(self, name: str, budget: Budget | None = None) -> Run:
        self.asked.append(("resume", name, budget))
        return RUN

    def retry_trials(self, name: str, names: Sequence[str] = ()) -> tuple[Run, int]:
        self.asked.append(("retry", name, list(names)))
        return RUN, 3

    def list_trials(self, parent: str, state: TrialState | None = None) -> Iterator[Trial]:
        self.asked.append(("list", parent, state))
        return iter([DEAD])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    for module in (runs, trials):
        monkeypatch.setattr(module, "connect", lambda address, data: made)
    return made


def call(app: Any, *words: str) -> Any:
    return CliRunner().invoke(app, list(words), catch_exceptions=True)


def test_a_budget_is_given_as_a_whole_or_not_at_all(client: FakeClient) -> None:
    for words, budget in (
        ((), None),
        (("--trials", "9", "--wall-seconds", "60"), Budget(trials=9, wall_seconds=60)),
        (("--unlimited",), Budget()),
    ):
        assert call(runs.app, "resume", "r", *words).exit_code == 0
        assert client.asked[-1] == ("resume", "runs/r", budget)


def test_pause_and_retry_say_what_came_of_them(client: FakeClient, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(runs.app, "pause", "runs/r").exit_code == 0
    assert call(trials.app, "retry", "r", DEAD.name).exit_code == 0
    assert client.asked == [("pause", "runs/r"), ("retry", "runs/r", [DEAD.name])]


def test_trials_are_listed_by_state_and_a_wrong_state_is_named(client: FakeClient) -> None:
    assert call(trials.app, "list", "r", "--state", "failed").exit_code == 0
    assert client.asked == [("list", "runs/r", TrialState.FAILED)]
    wrong = call(trials.app, "list", "r", "--state", "broken")
    assert isinstance(wrong.exception, InvalidInput)
    assert "succeeded" in wrong.exception.message
