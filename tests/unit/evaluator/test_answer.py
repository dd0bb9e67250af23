"""One answer, streamed: its pieces, its end, and what ends it early."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from evaluator_fakes import BASE_POLICY, GREEDY, TUNED_POLICY, FakeBackend
from prometheus_client import REGISTRY

from evaluator_svc.answer import answer
from sealkit.errors import AdapterCorrupt, ModelMismatch
from sealkit.types import AnswerDelta, AnswerEnd, FinishReason, Prompt

PROMPT = Prompt(user="Is the Ossel a river?")


def sampled() -> float:
    return REGISTRY.get_sample_value("seal_decode_tokens_total", {"kind": "completion"}) or 0.0


async def test_the_pieces_come_in_order_and_then_the_end() -> None:
    backend, before = FakeBackend({(TUNED_POLICY.adapter, None): {PROMPT.user}}), sampled()
    updates = [update async for update in answer(backend, TUNED_POLICY, PROMPT, GREEDY)]
    *pieces, end = updates
    assert "".join(piece.text for piece in pieces if isinstance(piece, AnswerDelta)) == "yes"
    assert isinstance(end, AnswerEnd)
    assert (end.finish_reason, end.usage.completion_tokens) == (FinishReason.STOP, 1)
    assert backend.asked[PROMPT.user, TUNED_POLICY.adapter, None] == 1
    assert sampled() == before + 1


async def test_a_slow_reader_misses_nothing() -> None:
    backend = FakeBackend({})
    text = ""
    async for update in answer(backend, BASE_POLICY, PROMPT, GREEDY):
        await asyncio.sleep(0.01)
        text += update.text if isinstance(update, AnswerDelta) else ""
    assert text == "no"


async def test_a_reader_that_stops_ends_the_decoding() -> None:
    backend = FakeBackend({})
    backend.held = asyncio.Event()
    async with aclosing(answer(backend, BASE_POLICY, PROMPT, GREEDY)) as updates:
        assert await anext(updates) == AnswerDelta(text="n")
        assert backend.running == 1
    assert backend.running == 0


async def test_an_error_is_the_backends_own() -> None:
    backend = FakeBackend({})
    backend.fault = AdapterCorrupt("no safetensors")
    with pytest.raises(AdapterCorrupt):
        [update async for update in answer(backend, TUNED_POLICY, PROMPT, GREEDY)]


async def test_another_base_model_answers_nothing() -> None:
    backend = FakeBackend({})
    with pytest.raises(ModelMismatch, match="policies/1 was trained on base model abab"):
        [update async for update in answer(backend, TUNED_POLICY, PROMPT, GREEDY, base_model="ab" * 32)]
    assert not backend.asked
    assert [update async for update in answer(backend, TUNED_POLICY, PROMPT, GREEDY, base_model="d" * 64)]
