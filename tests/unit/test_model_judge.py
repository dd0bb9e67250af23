"""The judge that is a model: strict about what it is told, paid for once, bounded in what it costs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from sealkit.errors import InvalidConfig, ResourceExhausted
from sealkit.judges import Answer, close_judge, load_judge
from sealkit.judges.budget import Budget, Pace
from sealkit.judges.cache import VerdictCache
from sealkit.judges.model import ModelJudge
from sealkit.judges.settings import JudgeSettings
from sealkit.observability.metrics import JUDGE_CALLS
from sealkit.types import Outcome


class Grader:
    """An endpoint that replies with `replies` in turn, the last again and again."""

    def __init__(self) -> None:
        self.replies: list[str | int] = ["yes"]
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        reply = self.replies[min(len(self.bodies), len(self.replies) - 1)]
        self.bodies.append(json.loads(request.content))
        if isinstance(reply, int):
            return httpx.Response(reply, text="out of order")
        usage = {"prompt_tokens": 100, "completion_tokens": 2}
        return httpx.Response(200, json={"choices": [{"message": {"content": reply}}], "usage": usage})


@pytest.fixture
def grader(monkeypatch: pytest.MonkeyPatch) -> Grader:
    found = Grader()
    transport = httpx.MockTransport(found)
    real = httpx.AsyncClient
    monkeypatch.setattr(
        "sealkit.endpoint.httpx.AsyncClient", lambda **options: real(**options | {"transport": transport})
    )
    return found


Make = Callable[..., ModelJudge]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[ModelJudge] = []

    def one(**settings: Any) -> ModelJudge:
        cache = f"sqlite:///{tmp_path}/judge.db"
        usual = {"url": "http://judge/v1", "model": "m", "cache_url": cache, "retries": 0, "requests_per_minute": 0}
        judge = load_judge("model", JudgeSettings(**{f"judge_{name}": v for name, v in (usual | settings).items()}))
        assert isinstance(judge, ModelJudge)
        made.append(judge)
        return judge

    yield one
    for judge in made:
        await close_judge(judge)


async def outcome(judge: ModelJudge, answer: str = "Copper.", gold: str = "copper") -> Outcome:
    return (await judge.judge("What metal?", gold, [Answer(answer)])).outcome


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yes", Outcome.CORRECT),
        (" Yes.\n", Outcome.CORRECT),
        ("NO", Outcome.INCORRECT),
        ("ungraded", Outcome.UNGRADED),
    ],
)
async def test_one_word_is_a_verdict(grader: Grader, make: Make, reply: str, expected: Outcome) -> None:
    grader.replies = [reply]
    assert await outcome(make()) is expected
    assert len(grader.bodies) == 1
    assert (grader.bodies[0]["model"], grader.bodies[0]["temperature"]) == ("m", 0)
    assert all(text in grader.bodies[0]["messages"][-1]["content"] for text in ("What metal?", "copper", "Copper."))


@pytest.mark.parametrize("reply", ["", "yes, because", "maybe", "yes no", "I say yes"])
async def test_anything_else_is_asked_for_once_more_and_then_ungraded(grader: Grader, make: Make, reply: str) -> None:
    grader.replies = [reply]
    judgement = await make().judge("What metal?", "copper", [Answer("Copper.")])
    assert judgement.outcome is Outcome.UNGRADED
    assert "neither yes, no nor ungraded" in judgement.reason
    assert len(grader.bodies) == 2


async def test_the_second_try_counts(grader: Grader, make: Make) -> None:
    grader.replies = ["Well…", "no"]
    assert await outcome(make()) is Outcome.INCORRECT


async def test_a_failing_endpoint_is_ungraded_and_asked_again_the_next_time(grader: Grader, make: Make) -> None:
    judge = make()
    grader.replies = [500, "yes"]
    judgement = await judge.judge("What metal?", "copper", [Answer("Copper.")])
    assert (judgement.outcome, judgement.reason[:11]) == (Outcome.UNGRADED, "UNAVAILABLE")
    assert await outcome(judge) is Outcome.CORRECT


async def test_an_answer_is_paid_for_once_in_company_and_across_restarts(grader: Grader, make: Make) -> None:
    judge = make()
    hits = JUDGE_CALLS.labels("hit")._value.get()
    assert set(await asyncio.gather(*(outcome(judge) for _ in range(8)))) == {Outcome.CORRECT}
    assert await outcome(make()) is Outcome.CORRECT
    assert len(grader.bodies) == 1
    assert JUDGE_CALLS.labels("hit")._value.get() == hits + 8


@pytest.mark.parametrize("other", [{"model": "n"}, {"url": "http://other/v1"}])
async def test_another_model_gives_a_verdict_of_its_own(grader: Grader, make: Make, other: dict[str, str]) -> None:
    grader.replies = ["yes", "no"]
    assert await outcome(make()) is Outcome.CORRECT
    assert await outcome(make(**other)) is Outcome.INCORRECT


async def test_another_answer_or_gold_is_another_verdict(grader: Grader, make: Make) -> None:
    judge = make()
    for answer, gold in (("a", "b"), ("b", "a"), ("a", "c")):
        await outcome(judge, answer, gold)
    assert len(grader.bodies) == 3


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"token_limit": 900}, "900 tokens"), ({"cost_limit": 0.0009, "prompt_price": 1.0}, "cost limit of 0.0009")],
)
async def test_beyond_a_limit_it_says_ungraded_and_asks_no_more(
    grader: Grader, make: Make, limit: dict[str, float], reason: str
) -> None:
    judge = make(**limit)
    judged = [await judge.judge("What metal?", "copper", [Answer(f"Copper {i}")]) for i in range(12)]
    assert judged[0].outcome is Outcome.CORRECT
    assert judged[-1].outcome is Outcome.UNGRADED
    assert reason in judged[-1].reason
    assert 1 <= len(grader.bodies) * 100 <= 900


async def test_a_cache_that_fails_costs_no_verdict(grader: Grader, make: Make, tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    assert await outcome(make(cache_url=f"sqlite:///{tmp_path}/bad.db")) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": ""}, "SEAL_EVALUATOR_JUDGE_URL"),
        ({"model": ""}, "SEAL_EVALUATOR_JUDGE_MODEL"),
        ({"url": "judge:80"}, "SEAL_EVALUATOR_JUDGE_URL"),
        ({"cache_url": "nosuch://x"}, "cache URL"),
        ({"api_key_env": "NO_SUCH_KEY"}, r"\$NO_SUCH_KEY"),
    ],
)
def test_a_setting_that_is_missing_or_faulty_is_named(make: Make, settings: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        make(**settings)


async def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, grader: Grader) -> None:
    monkeypatch.setenv("SEAL_EVALUATOR_JUDGE_URL", "http://judge/v1")
    monkeypatch.setenv("SEAL_EVALUATOR_JUDGE_MODEL", "some/model")
    monkeypatch.setenv("SEAL_EVALUATOR_JUDGE_CACHE_URL", "sqlite://")
    judge = load_judge("model")
    assert judge.version == "some/model/prompt-1"
    assert (await judge.judge("q", "a", [Answer("a")])).outcome is Outcome.CORRECT
    await close_judge(judge)


async def test_requests_are_spread_over_the_minute() -> None:
    now, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    pace = Pace(60, clock=lambda: now[0], sleep=sleep)
    for _ in range(4):
        await pace.turn()
    assert slept == [1.0, 2.0, 3.0]
    now[0] = 100
    slept.clear()
    await pace.turn()
    assert slept == []


def test_what_is_under_way_counts_until_it_is_settled() -> None:
    budget = Budget(tokens=100, money=0, prompt_price=0, completion_price=0)
    budget.reserve(50, 10)
    with pytest.raises(ResourceExhausted):
        budget.reserve(50, 10)
    budget.settle((50, 10), (20, 1))
    budget.reserve(50, 10)


async def test_the_cache_keeps_the_first_verdict(tmp_path: Path) -> None:
    one, other = (VerdictCache(f"sqlite:///{tmp_path}/sub/judge.db") for _ in range(2))
    await one.put("k", Outcome.CORRECT, "m")
    await other.put("k", Outcome.INCORRECT, "m")
    assert await other.get("k") is Outcome.CORRECT
    assert await other.get("unknown") is None
    await one.close()
    await other.close()
