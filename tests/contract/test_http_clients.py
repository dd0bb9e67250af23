"""OpenAI's own client, and LangChain's, against the HTTP service: they see a model server like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from langchain_openai import ChatOpenAI, OpenAI
from openai import AsyncOpenAI

from controller.db import aliases
from controller.db.database import Database
from sealkit.errors import AdapterCorrupt, PromptTooLong, QueueFull, Unavailable
from tests.contract.http_harness import Served, served
from tests.contract.tenants_harness import furnish
from tests.records import new_record
from tests.unit.controller.changes import change

QUESTION = [{"role": "user", "content": "Which river?"}]


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> Database:
    made = new_record(tmp_path)
    await furnish(made, "", alias="notes")
    return made


@pytest_asyncio.fixture
async def service(tmp_path: Path, database: Database) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made
    await database.close()


@pytest_asyncio.fixture
async def client(service: Served) -> AsyncIterator[AsyncOpenAI]:
    async with service.openai() as made:
        yield made


async def test_models_are_the_base_and_the_aliases(client: AsyncOpenAI) -> None:
    listed = [model async for model in await client.models.list()]
    assert [model.id for model in listed] == ["base", "notes"]
    assert listed[1].created > 1_600_000_000
    assert (await client.models.retrieve("notes")).id == "notes"
    assert (await client.models.retrieve("base")).id == "base"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("ghosts")


async def test_a_chat(client: AsyncOpenAI, service: Served) -> None:
    got = await client.chat.completions.create(
        model="notes",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Good day"},
            {"role": "user", "content": "Which"},
            {"role": "user", "content": "river?"},
        ],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=30,
        stop=["\n\n", "END"],
        seed=-1,
        n=1,
    )
    assert got.choices[0].message.content == "base says Which river?"
    assert got.choices[0].finish_reason == "stop"
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (5, 4, 9)
    ((_, prompt, sampling),) = service.services.sampled
    assert (prompt.system, prompt.user) == ("Be brief.", "Which\n\nriver?")
    assert [(shot.user, shot.assistant) for shot in prompt.shots] == [("Hello", "Good day")]
    asked = sampling.model_dump(exclude={"json_schema"})
    assert asked == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 30, "stop": ("\n\n", "END"), "seed": 2**64 - 1,
    }  # fmt: skip


async def test_a_chat_that_is_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="base", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == [
        "base", " says", " Which", " river?",
    ]  # fmt: skip
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert len({chunk.id for chunk in chunks}) == 1


async def test_completions_of_several_prompts(client: AsyncOpenAI) -> None:
    got = await client.completions.create(model="base", prompt=["one", "two"], max_tokens=5)
    assert [(choice.index, choice.text) for choice in got.choices] == [(0, "base says one"), (1, "base says two")]
    assert got.usage.completion_tokens == 6
    texts, reasons, used = {0: "", 1: ""}, {}, None
    stream = await client.completions.create(
        model="base", prompt=["one", "two"], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        used = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == {0: "base says one", 1: "base says two"}
    assert reasons == {0: "stop", 1: "stop"}
    assert used == got.usage


async def test_errors_of_completions_name_the_prompt(client: AsyncOpenAI, service: Served) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.completions.create(model="ghosts", prompt="a")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    service.script.faults = {"answer": PromptTooLong("the prompt has 200 tokens")}
    with pytest.raises(openai.BadRequestError) as long:
        await client.completions.create(model="notes", prompt="a")
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")
    service.script.faults = {"two": Unavailable("evaluator died")}
    stream = await client.completions.create(model="base", prompt=["one", "two"], stream=True)
    with pytest.raises(openai.APIError, match="evaluator died"):
        _ = [chunk async for chunk in stream]


async def test_without_a_seed_no_two_answers_are_the_same_draw(client: AsyncOpenAI, service: Served) -> None:
    for _ in range(2):
        await client.completions.create(model="base", prompt="a")
    assert len({sampling.seed for _, _, sampling in service.services.sampled}) == 2
    assert {sampling.max_tokens for _, _, sampling in service.services.sampled} == {16}


async def test_a_schema_constrains_the_answer(client: AsyncOpenAI, service: Served) -> None:
    schema = {"type": "object", "properties": {"river": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "river", "schema": schema, "strict": True}}
    await client.chat.completions.create(model="base", messages=QUESTION, response_format=wanted)
    assert (
        service.services.sampled[0][2].json_schema == '{"type": "object", "properties": {"river": {"type": "string"}}}'
    )


async def test_errors_are_the_clients_own(client: AsyncOpenAI, service: Served) -> None:
    faults = {
        openai.BadRequestError: PromptTooLong("the prompt has 200 tokens"),
        openai.RateLimitError: QueueFull("full", retry_after=2.5),
        openai.InternalServerError: AdapterCorrupt("no safetensors"),
    }
    told = {}
    for kind, fault in faults.items():
        service.script.faults = {"answer": fault}
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="notes", messages=QUESTION)
        told[kind] = (caught.value.status_code, caught.value.code, caught.value.param)
        if kind is openai.RateLimitError:
            assert caught.value.response.headers["retry-after"] == "3"
    assert told == {
        openai.BadRequestError: (400, "context_length_exceeded", "messages"),
        openai.RateLimitError: (429, "queue_full", None),
        openai.InternalServerError: (500, "adapter_corrupt", None),
    }
    service.script.faults = {"answer": Unavailable("no evaluator")}
    with pytest.raises(openai.InternalServerError) as gone:
        await client.chat.completions.create(model="notes", messages=QUESTION)
    assert gone.value.status_code == 503
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="ghosts", messages=QUESTION)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


async def test_a_stream_that_breaks_raises_and_gives_no_more_text(client: AsyncOpenAI, service: Served) -> None:
    service.script.faults = {"river?": Unavailable("evaluator died")}
    text = ""
    stream = await client.chat.completions.create(model="base", messages=QUESTION, stream=True)

    async def read() -> None:
        nonlocal text
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError, match="evaluator died"):
        await read()
    assert text == "base says Which"


async def test_an_alias_that_is_moved_changes_no_stream(
    client: AsyncOpenAI, service: Served, database: Database
) -> None:
    other = await furnish(database, "", request_id="other", alias="elsewhere")
    service.script.held = "Which"
    stream = await client.chat.completions.with_raw_response.create(model="notes", messages=QUESTION, stream=True)
    before = stream.headers["seal-policy"]
    await service.script.reached.wait()
    await database.write(aliases.set_to, change("aliases/notes", "moved"), other.policy, "")
    service.script.released.set()
    words = [c.choices[0].delta.content async for c in stream.parse() if c.choices[0].delta.content]
    assert "".join(words) == "base says Which river?"
    after = await client.chat.completions.with_raw_response.create(model="notes", messages=QUESTION)
    assert (before, after.headers["seal-policy"]) == ((await _first(database)), other.policy)


async def _first(database: Database) -> str:
    alias = await database.read(aliases.get, change("x").scope, "notes")
    return alias.history[-1].policy


async def test_a_client_that_leaves_ends_the_decoding(client: AsyncOpenAI, service: Served) -> None:
    service.script.held = "river?"
    stream = await client.chat.completions.create(model="base", messages=QUESTION, stream=True)
    await anext(aiter(stream))
    await service.script.reached.wait()
    await stream.close()
    async with asyncio.timeout(10):
        while not service.services.calls["answer closed"]:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
    whole = asyncio.ensure_future(client.chat.completions.create(model="base", messages=QUESTION))
    service.script.reached.clear()
    await service.script.reached.wait()
    whole.cancel()
    async with asyncio.timeout(10):
        while service.services.calls["answer closed"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- LangChain --------------------------------------------------------------------------------------------------------
async def test_langchain_chats_and_streams(service: Served) -> None:
    options = {"base_url": f"{service.url}/v1", "api_key": "any", "max_retries": 0}
    chat = ChatOpenAI(model="notes", temperature=0, **options)
    got = await chat.ainvoke([("system", "Be brief."), ("human", "Which river?")])
    assert got.content == "base says Which river?"
    assert got.usage_metadata["total_tokens"] == 9
    pieces = [piece.content async for piece in chat.astream("Which river?")]
    assert "".join(pieces) == "base says Which river?"
    assert len(pieces) > 3
    batch = await chat.abatch(["one", "two"])
    assert [one.content for one in batch] == ["base says one", "base says two"]
    text = OpenAI(model="base", **options)
    assert await text.ainvoke("The river is") == "base says The river is"
    assert "".join([piece async for piece in text.astream("The river is")]) == "base says The river is"


async def test_langchain_raises_the_errors_of_the_service(service: Served) -> None:
    options = {"base_url": f"{service.url}/v1", "api_key": "any", "max_retries": 0}
    for model in (ChatOpenAI(model="ghosts", **options), OpenAI(model="ghosts", **options)):
        with pytest.raises(openai.NotFoundError, match="ghosts"):
            await model.ainvoke("Which river?")
    chat = ChatOpenAI(model="notes", stream_usage=True, **options)
    pieces = [piece async for piece in chat.astream("Which river?")]
    usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [one["total_tokens"] for one in usage] == [9]
    service.script.faults = {"river?": Unavailable("evaluator died")}
    with pytest.raises(openai.APIError, match="evaluator died"):
        _ = [piece async for piece in chat.astream("Which river?")]
