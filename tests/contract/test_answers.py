"""Answers through the Python clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest
import pytest_asyncio

from sealkit.client import AsyncSealClient, SealClient
from sealkit.errors import InvalidInput, Unavailable, UnknownAlias
from sealkit.resources import AnswerBegun
from sealkit.types import AnswerDelta, AnswerEnd, Prompt, Sampling, Shot
from tests.contract.http_harness import Served, served
from tests.contract.tenants_harness import furnish
from tests.records import new_record

PROMPT = Prompt(user="Which river?", system="Be brief.", shots=(Shot(user="Hello", assistant="Good day"),))
GREEDY = Sampling(temperature=0, stop=("\n",))


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Served]:
    database = new_record(tmp_path)
    await furnish(database, "", alias="notes")
    await database.close()
    async with served(tmp_path) as made:
        yield made


async def test_both_clients_give_the_whole_answer_and_its_pieces(service: Served) -> None:
    def blocking() -> tuple[str, list[str]]:
        with SealClient(service.controller) as seal:
            pieces = [type(update).__name__ for update in seal.stream_answer("aliases/notes", PROMPT, GREEDY)]
            return seal.answer("", "Which river?").text, pieces

    text, pieces = await asyncio.to_thread(blocking)
    assert text == "base says Which river?"
    assert pieces == ["AnswerBegun", *["AnswerDelta"] * 4, "AnswerEnd"]
    async with AsyncSealClient(service.controller) as seal:
        answer = await seal.answer("aliases/notes", PROMPT, GREEDY)
        updates = [update async for update in seal.stream_answer("aliases/notes", PROMPT, GREEDY)]
    assert answer.begun.alias == "aliases/notes"
    assert answer.end.usage.completion_tokens == 4
    assert isinstance(updates[0], AnswerBegun)
    assert isinstance(updates[-1], AnswerEnd)
    assert "".join(update.text for update in updates if isinstance(update, AnswerDelta)) == answer.text
    assert service.services.sampled[0][1:] == (PROMPT, GREEDY)


async def test_a_stream_that_is_closed_ends_the_decoding(service: Served) -> None:
    service.script.held = "Which"
    async with AsyncSealClient(service.controller) as seal:
        async with aclosing(seal.stream_answer("aliases/notes", PROMPT, GREEDY)) as updates:
            assert isinstance(await anext(updates), AnswerBegun)
        async with asyncio.timeout(10):
            while not service.services.calls["answer closed"]:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)

    def blocking() -> None:
        with SealClient(service.controller) as seal, closing(seal.stream_answer("", "Which river?")) as updates:
            next(updates)

    await asyncio.to_thread(blocking)
    async with asyncio.timeout(10):
        while service.services.calls["answer closed"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_has_begun_is_not_asked_again(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealkit.client.base.BaseClient._RETRY_PAUSES", (0.0,))
    async with AsyncSealClient(service.controller) as seal:
        service.script.faults = {"answer": Unavailable("no evaluator")}
        with pytest.raises(Unavailable):
            await seal.answer("aliases/notes", PROMPT)
        assert service.services.calls["answer"] == 2
        service.script.faults = {"river?": Unavailable("evaluator died")}
        with pytest.raises(Unavailable, match="evaluator died"):
            await seal.answer("aliases/notes", PROMPT)
        assert service.services.calls["answer"] == 3
        with pytest.raises(UnknownAlias):
            await seal.answer("aliases/ghosts", PROMPT)
        with pytest.raises(InvalidInput, match="unicode"):
            await seal.answer("aliases/notes", "half \ud800")
