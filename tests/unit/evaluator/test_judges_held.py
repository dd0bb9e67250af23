"""The evaluator's judges: made by its settings, once, and closed with it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from evaluator_fakes import BASE_POLICY, TRIAL, FakeBackend, evaluate

from evaluator_svc.evaluate import Evaluator
from evaluator_svc.settings import EvaluatorSettings
from sealkit.errors import InvalidConfig
from sealkit.judges import Answer, Judgement
from sealkit.judges.settings import JudgeSettings
from sealkit.types import Outcome


class Held:
    name = "held"
    version = "7"
    closed = 0

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        return Judgement(Outcome.CORRECT)

    async def close(self) -> None:
        self.closed += 1


async def test_a_judge_is_made_once_and_closed_with_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Held, JudgeSettings | None]] = []

    def load(name: str, settings: JudgeSettings | None) -> Held:
        made.append((Held(), settings))
        return made[-1][0]

    monkeypatch.setattr("evaluator_svc.evaluate.load_judge", load)
    settings = JudgeSettings(judge_model="m")
    evaluator = Evaluator(FakeBackend({}), kept_verdicts=9, judge_settings=settings)
    for _ in range(2):
        assert (await evaluate(evaluator, BASE_POLICY, TRIAL, "a")).judge_version == "7"
    await evaluator.close()
    assert [(judge.closed, given) for judge, given in made] == [(1, settings)]


async def test_the_judge_model_without_an_endpoint_is_refused_before_anything_is_asked() -> None:
    backend = FakeBackend({})
    evaluator = Evaluator(backend, kept_verdicts=9, judge_settings=JudgeSettings())
    with pytest.raises(InvalidConfig, match="SEAL_EVALUATOR_JUDGE_URL"):
        await evaluate(evaluator, BASE_POLICY, TRIAL, "a", judge="model")
    assert not backend.asked


def test_the_evaluator_takes_the_judges_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MODEL": "m", "STORE_URL": "file:///s", "JUDGE_MODEL": "j", "JUDGE_TOKEN_LIMIT": "5"}.items():
        monkeypatch.setenv(f"SEAL_EVALUATOR_{name}", value)
    settings = EvaluatorSettings()
    assert (settings.judge_model, settings.judge_token_limit) == ("j", 5)
