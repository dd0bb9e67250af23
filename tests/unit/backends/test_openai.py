"""The backend on an OpenAI-compatible server: what it asks for, and what it makes of answers and of none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sealkit.backends.models import describe_model
from sealkit.backends.openai import OpenAIBackend, ServedModel, completion_request
from sealkit.backends.remote import NoAdapters, SharedTime
from sealkit.backends.template import render_prompt
from sealkit.endpoint import EndpointOptions
from sealkit.errors import (
    EndpointRefused,
    InvalidInput,
    InvalidModel,
    PromptTooLong,
    QueueFull,
    Unavailable,
    Unsupported,
)
from sealkit.types import AdapterRef, FinishReason, Policy, Prompt, Sampling, digest_of
from tests.serving import FakeVllm
from tests.unit.backends.conftest import Make

TOWN = Prompt(user="the town")
GREEDY = Sampling(temperature=0, max_tokens=5)


@pytest.fixture
async def make(vllm: FakeVllm, model: Path) -> AsyncIterator[Make]:
    made: list[OpenAIBackend] = []

    def one(served_as: str = "base", **options: Any) -> OpenAIBackend:
        quick = {"url": f"{vllm.url}/v1", "backoff_seconds": 0.001, "retries": 1}
        found = ServedModel(model=str(model), served_as=served_as)
        made.append(OpenAIBackend(found, EndpointOptions(**quick | options), NoAdapters("use vllm")))
        return made[-1]

    yield one
    for backend in made:
        await backend.close()


async def test_a_server_of_another_model_is_refused(make: Make) -> None:
    with pytest.raises(InvalidModel, match="does not serve 'other'; it serves base"):
        await make("other").start()


async def test_a_server_that_reads_other_tokens_is_refused(make: Make, vllm: FakeVllm) -> None:
    vllm.broken["/v1/completions"] = 200, {"choices": [{"text": "", "prompt_token_ids": [1, 2, 3]}], "usage": {}}
    with pytest.raises(InvalidModel, match="tokenizes differently"):
        await make().start()


@pytest.mark.parametrize(("count", "good"), [(None, True), (0, False), (1000, False)])
async def test_a_server_that_shows_no_tokens_is_held_to_their_number(
    make: Make, vllm: FakeVllm, count: int | None, good: bool
) -> None:
    usage = {} if count is None else {"prompt_tokens": count}
    vllm.broken["/v1/completions"] = 200, {"choices": [{"text": ""}], "usage": usage}
    if good:
        await make().start()
    else:
        with pytest.raises(InvalidModel, match="tokenizes differently"):
            await make().start()


async def test_a_prompt_is_sent_as_the_tokens_that_the_trainer_reads(make: Make, vllm: FakeVllm, model: Path) -> None:
    backend = make()
    await backend.start()
    tokens = render_prompt(describe_model(str(model))[0], TOWN)
    sampling = Sampling(
        temperature=0.7, top_p=0.9, max_tokens=7, seed=2**31 + 5, stop=("\n",), json_schema='{"type": "null"}'
    )
    said = await backend.generate(TOWN, sampling)
    assert vllm.requests[-1] == (
        "/v1/completions",
        {
            "model": "base", "prompt": tokens, "max_tokens": 7, "temperature": 0.7, "top_p": 0.9, "seed": 5,
            "stop": ["\n"],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "completion", "schema": {"type": "null"}},
            },
        },
    )  # fmt: skip
    assert (said.text, said.finish_reason) == ("base says", FinishReason.STOP)
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (len(tokens), 3)
    assert 0 < said.usage.device_seconds <= said.usage.wall_seconds


async def test_what_was_cut_off_says_so(make: Make, vllm: FakeVllm) -> None:
    backend = make()
    await backend.start()
    vllm.finish = "length"
    assert (await backend.generate(TOWN, GREEDY)).finish_reason is FinishReason.LENGTH


async def test_the_shorter_context_counts(make: Make, vllm: FakeVllm) -> None:
    vllm.context = 20
    backend = make()
    await backend.start()
    assert backend.info.context_length == 20
    with pytest.raises(PromptTooLong) as raised:
        await backend.generate(Prompt(user="the town " * 20), GREEDY)
    assert raised.value.metadata["context_length"] == "20"
    assert completion_request("m", [1] * 15, Sampling(max_tokens=64), 20 - 15)["max_tokens"] == 5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {"error": {"message": "no such model"}}), Unavailable),
        ((429, "busy", {"retry-after": "7"}), QueueFull),
        ((500, "the engine died"), Unavailable),
        ((400, "too long"), EndpointRefused),
        ((200, {"choices": []}), Unavailable),
        ((200, "<html>"), Unavailable),
        (None, Unavailable),
    ],
)
async def test_no_answer_is_a_typed_error(make: Make, vllm: FakeVllm, answer: Any, error: type[Exception]) -> None:
    backend = make(longest_wait_seconds=5)
    await backend.start()
    vllm.broken["/v1/completions"] = answer
    with pytest.raises(error) as raised:
        await backend.generate(TOWN, GREEDY)
    assert type(raised.value) is error
    if error is QueueFull:
        assert raised.value.retry_after == 7  # type: ignore[attr-defined]


async def test_an_adapter_where_none_can_be_put_on_is_refused(make: Make) -> None:
    backend = make()
    await backend.start()
    assert backend.info.build["adapters"] == "fixed"
    with pytest.raises(Unsupported, match="use vllm"):
        await backend.generate(TOWN, GREEDY, policy=Policy(name="p", adapter=AdapterRef(digest=digest_of("x"))))


async def test_a_backend_that_is_not_started_says_so(make: Make) -> None:
    with pytest.raises(Unavailable, match="not started"):
        await make().generate(TOWN, GREEDY)


async def test_a_schema_that_is_no_json_reaches_no_server() -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        completion_request("m", [1], Sampling(json_schema="{"), 5)


async def test_shares_of_a_servers_time_add_up_to_when_there_was_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("sealkit.backends.remote.time.perf_counter", lambda: now)
    time = SharedTime()
    with time.request() as first:
        now = 4.0
        with time.request() as second:
            now = 10.0
        now = 11.0
    now = 100.0
    with time.request() as third:
        now = 102.0
    assert (first[0], second[0], third[0]) == (4 + 3 + 1, 3, 2)


async def test_requests_at_once_share_the_time(make: Make) -> None:
    backend = make()
    await backend.start()
    said = await asyncio.gather(*(backend.generate(TOWN, GREEDY) for _ in range(8)))
    assert sum(one.usage.device_seconds for one in said) <= max(one.usage.wall_seconds for one in said) + 0.05
