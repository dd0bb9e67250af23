"""Answers from real processes, over HTTP and by RPC: many adapters at once, what a killed process leaves of a stream,
and an alias that is moved during one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2 as httpx
import openai
import pytest

from benchmarks.answer_stack import AnswerStack, publish
from benchmarks.answers import QUESTIONS, make_adapters
from sealkit.backends.models import describe_model
from sealkit.client import AsyncSealClient
from sealkit.errors import Unavailable
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import AnswerDelta, Prompt, Sampling

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

COUNT, TOKENS, RANK, STD = 3, 300, 16, 0.02
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROCESSES = ("evaluator", "controller", "gateway")
BROKEN = (openai.APIError, httpx.HTTPError, Unavailable)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AnswerStack, dict[str, str]]]:
    """The processes, and by alias what PEFT answers to its question."""
    folder = tmp_path_factory.mktemp("answers")
    model = make_tiny_model(folder / "model")
    adapters = make_adapters(model, AdapterStore(str(folder / "store")), COUNT, rank=RANK, std=STD)
    arguments = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": TARGETS}
    peft = PeftReference(model, dict.fromkeys(adapters, arguments), std=STD)
    stack = AnswerStack(folder, model, folder / "store")
    asyncio.run(publish(stack.database, adapters, describe_model(str(model))[1].digest))
    for name in PROCESSES:
        stack.start(name)
    try:
        asyncio.run(stack.ready(*PROCESSES))
        yield stack, {alias: peft.answer(Prompt(user=QUESTIONS[0]), [alias], TOKENS) for alias in adapters}
    finally:
        stack.stop()


class Reading:
    """An answer that is being read: its text so far, and the error that it broke off with. `begun` is set once there is
    some of it, or there will be none."""

    def __init__(self, alias: str, pieces: AsyncIterator[str]) -> None:
        self.alias = alias
        self.text = ""
        self.error: Exception | None = None
        self.begun = asyncio.Event()
        self._task = asyncio.create_task(self._read(pieces))

    async def to_the_end(self) -> str:
        await self._task
        return self.text

    async def _read(self, pieces: AsyncIterator[str]) -> None:
        try:
            async for piece in pieces:
                self.text += piece
                self.begun.set()
        except BROKEN as error:
            self.error = error
        finally:
            self.begun.set()


class Clients:
    """Asks the gateway and the controller."""

    def __init__(self, http: openai.AsyncOpenAI, seal: AsyncSealClient) -> None:
        self.seal = seal
        self._http = http

    async def until_answered(self) -> None:
        """Returns when the base model answers: the processes find one that was started again after some time."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self._http.chat.completions.create(
                        model="base", messages=[{"role": "user", "content": QUESTIONS[0]}], max_tokens=1
                    )
                    return
                except openai.InternalServerError:  # 503
                    await asyncio.sleep(0.2)

    def read(self, aliases: Sequence[str]) -> tuple[list[Reading], list[Reading]]:
        """The answers of these aliases over HTTP, and by RPC; all at once."""
        return [Reading(a, self._over_http(a)) for a in aliases], [Reading(a, self._by_rpc(a)) for a in aliases]

    async def texts(self, aliases: Sequence[str]) -> list[dict[str, str]]:
        """The same once they are whole, by alias. Raises what one of them broke off with."""
        found = self.read(aliases)
        for reading in (*found[0], *found[1]):
            await reading.to_the_end()
        if error := next((one.error for way in found for one in way if one.error), None):
            raise error
        return [{one.alias: one.text for one in way} for way in found]

    async def _over_http(self, alias: str) -> AsyncIterator[str]:
        stream = await self._http.chat.completions.create(
            model=alias, messages=[{"role": "user", "content": QUESTIONS[0]}], temperature=0, max_tokens=TOKENS,
            stream=True,
        )  # fmt: skip
        async for chunk in stream:
            if piece := chunk.choices[0].delta.content:
                yield piece

    async def _by_rpc(self, alias: str) -> AsyncIterator[str]:
        greedy = Sampling(temperature=0, max_tokens=TOKENS)
        async for update in self.seal.stream_answer(f"aliases/{alias}", QUESTIONS[0], greedy):
            if isinstance(update, AnswerDelta):
                yield update.text


@asynccontextmanager
async def clients(stack: AnswerStack) -> AsyncIterator[Clients]:
    async with AsyncExitStack() as closed:
        http = httpx.AsyncClient(trust_env=False, timeout=60)
        asks = openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="any", max_retries=0, http_client=http)
        yield Clients(
            await closed.enter_async_context(asks), await closed.enter_async_context(AsyncSealClient(stack.address))
        )


async def test_a_killed_process_breaks_its_streams_and_no_text_is_another_models(
    built: tuple[AnswerStack, dict[str, str]],
) -> None:
    stack, wanted = built
    assert len(set(wanted.values())) == COUNT, "the adapters differ"
    async with clients(stack) as ask:
        assert await ask.texts(list(wanted)) == [wanted, wanted]
    for names in (*((name,) for name in PROCESSES), PROCESSES):
        async with clients(stack) as ask:
            http, rpc = ask.read(list(wanted))
            for reading in (*http, *rpc):
                await reading.begun.wait()
            for name in names:
                stack.kill(name)
            for reading in (*http, *rpc):
                text = await reading.to_the_end()
                whole = names == ("gateway",) and reading in rpc  # which does not go through it
                assert (reading.error is None) == whole, (names, reading.alias, reading.error)
                assert text == wanted[reading.alias] if whole else wanted[reading.alias].startswith(text), names
        for name in names:
            stack.start(name)
        await stack.ready(*names)
        async with clients(stack) as ask:
            await ask.until_answered()
            assert await ask.texts(list(wanted)) == [wanted, wanted], names


async def test_a_stream_is_finished_by_the_version_that_it_began_with(
    built: tuple[AnswerStack, dict[str, str]],
) -> None:
    stack, wanted = built
    moved, target = list(wanted)[:2]
    async with clients(stack) as ask:
        policies = {alias: (await ask.seal.get_alias(f"aliases/{alias}")).policy for alias in (moved, target)}
        http, rpc = ask.read([moved])
        for reading in (*http, *rpc):
            await reading.begun.wait()
        await ask.seal.set_alias(f"aliases/{moved}", policies[target])
        after = await ask.texts([moved])
        before = [await reading.to_the_end() for reading in (*http, *rpc)]
        await ask.seal.set_alias(f"aliases/{moved}", policies[moved])
        assert await ask.texts([moved]) == [{moved: wanted[moved]}] * 2
    assert before == [wanted[moved]] * 2
    assert after == [{moved: wanted[target]}] * 2
