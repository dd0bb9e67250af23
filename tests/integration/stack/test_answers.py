"""Answers over HTTP from real processes: many adapters at once, and what a killed process leaves of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
import pytest_asyncio

from benchmarks.answer_stack import AnswerStack, publish
from benchmarks.answers import QUESTIONS, make_adapters
from sealkit.backends.models import describe_model
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import Prompt

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

COUNT, TOKENS, RANK, STD = 3, 300, 16, 0.02
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest_asyncio.fixture
async def built(tmp_path: Path) -> AsyncIterator[tuple[AnswerStack, dict[str, str]]]:
    """The processes, and by alias what PEFT answers to its question."""
    model = make_tiny_model(tmp_path / "model")
    adapters = make_adapters(model, AdapterStore(str(tmp_path / "store")), COUNT, rank=RANK, std=STD)
    arguments = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": TARGETS}
    peft = PeftReference(model, dict.fromkeys(adapters, arguments), std=STD)
    stack = AnswerStack(tmp_path, model, tmp_path / "store")
    await publish(stack.database, adapters, describe_model(str(model))[1].digest)
    for name in ("evaluator", "controller", "gateway"):
        stack.start(name)
    try:
        await stack.ready("evaluator", "controller", "gateway")
        yield stack, {alias: peft.answer(Prompt(user=QUESTIONS[0]), [alias], TOKENS) for alias in adapters}
    finally:
        stack.stop()


def client(stack: AnswerStack) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(trust_env=False, timeout=60)
    return openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="any", max_retries=0, http_client=http)


async def read(ask: openai.AsyncOpenAI, alias: str, begun: asyncio.Event | None = None) -> str:
    text = ""
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    stream = await ask.chat.completions.create(
        model=alias, messages=messages, temperature=0, max_tokens=TOKENS, stream=True
    )
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if begun is not None and text:
            begun.set()
    return text


async def test_a_killed_process_breaks_its_streams_and_no_text_is_another_models(
    built: tuple[AnswerStack, dict[str, str]],
) -> None:
    stack, wanted = built
    assert len(set(wanted.values())) == COUNT, "the adapters differ"
    async with client(stack) as ask:
        texts = await asyncio.gather(*(read(ask, alias) for alias in wanted))
    assert dict(zip(wanted, texts, strict=True)) == wanted
    for name in ("evaluator", "controller", "gateway"):
        async with client(stack) as ask:
            begun = {alias: asyncio.Event() for alias in wanted}
            reading = [asyncio.ensure_future(read(ask, alias, event)) for alias, event in begun.items()]
            await asyncio.gather(*(event.wait() for event in begun.values()))
            stack.kill(name)
            broken = await asyncio.gather(*reading, return_exceptions=True)
        assert all(isinstance(one, openai.APIError | httpx.HTTPError) for one in broken), (name, broken)
        stack.start(name)
        await stack.ready(name)
        async with client(stack) as ask:
            async with asyncio.timeout(60):
                while True:
                    try:
                        texts = await asyncio.gather(*(read(ask, alias) for alias in wanted))
                        break
                    except openai.InternalServerError:  # 503: the others have not found it again yet
                        await asyncio.sleep(0.2)
        assert dict(zip(wanted, texts, strict=True)) == wanted, name
