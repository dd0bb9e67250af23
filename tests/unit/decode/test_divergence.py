"""KL(base || subject) is what PEFT and torch say, read between the steps of rows that decode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sealkit.backends.decoding import divergence as divergence_module
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import InvalidInput, PromptTooLong, Unavailable
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.types import AdapterRef, Policy, Prompt, PromptFormat, Sampling, digest_of

ADAPTERS: dict[str, dict[str, Any]] = {
    "trial": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "o_proj", "up_proj"]},
    "policy": {"r": 3, "lora_alpha": 6, "target_modules": ["v_proj", "down_proj"]},
}
TEXTS: list[Prompt | str] = [
    Prompt(user="the town"),
    "The river runs through the town, and the lighthouse at Veldermoor was built in 1847.",
    Prompt(user="the machine", format=PromptFormat.PLAIN),
    "x",
]


@pytest.fixture(scope="module")
def peft(model: Path) -> PeftReference:
    return PeftReference(model, ADAPTERS, std=0.05)


@pytest.fixture
async def ours(peft: PeftReference, tmp_path: Path) -> AsyncIterator[TransformersBackend]:
    store = AdapterStore(tmp_path.as_uri())
    for name in ADAPTERS:
        store.put(digest_of(name), peft.files(name), {})
    backend = TransformersBackend(ModelSettings(model=str(peft.folder), device="cpu"), store, max_rows=4)
    await backend.start()
    yield backend
    await backend.close()


TRIAL = AdapterRef(digest=digest_of("trial"))
POLICY = Policy(name="policies/p", adapter=AdapterRef(digest=digest_of("policy")))


async def test_it_is_what_peft_and_torch_say(ours: TransformersBackend, peft: PeftReference) -> None:
    for policy, adapter, names in ((None, TRIAL, ["trial"]), (POLICY, None, ["policy"]), (POLICY, TRIAL, [*ADAPTERS])):
        got = await ours.divergence(TEXTS, policy=policy, adapter=adapter)
        assert got == pytest.approx([peft.divergence(text, names) for text in TEXTS], rel=1e-3)
        assert min(got) > 1e-4


async def test_a_text_read_in_pieces_says_the_same(ours: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await ours.divergence(TEXTS, adapter=TRIAL)
    monkeypatch.setattr(divergence_module, "_LOGITS", 2 * 5 * ours.info.context_length)  # fewer than a position's
    assert await ours.divergence(TEXTS, adapter=TRIAL) == pytest.approx(whole, rel=1e-4)


async def test_the_base_is_not_apart_from_itself(ours: TransformersBackend) -> None:
    assert await ours.divergence(TEXTS) == [0.0] * len(TEXTS)


async def test_it_leaves_rows_that_decode_alone(ours: TransformersBackend) -> None:
    greedy = Sampling(temperature=0, max_tokens=40)
    asked = [(Prompt(user=t), a) for t in ("the town", "the river") for a in (TRIAL, None)]
    alone = [(await ours.generate(p, greedy, adapter=a)).text for p, a in asked]
    rows = asyncio.gather(*(ours.generate(p, greedy, adapter=a) for p, a in asked))
    measured = await asyncio.gather(*(ours.divergence(TEXTS, policy=POLICY) for _ in range(5)))
    assert [got.text for got in await rows] == alone
    assert all(m == measured[0] for m in measured)


async def test_who_leaves_is_forgotten_and_who_stays_at_the_end_is_told(ours: TransformersBackend) -> None:
    leaving = [asyncio.ensure_future(ours.divergence(TEXTS, adapter=TRIAL)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert len(await ours.divergence(TEXTS[:1], adapter=TRIAL)) == 1
    await ours.close()
    with pytest.raises(Unavailable):
        await ours.divergence(TEXTS, adapter=TRIAL)


async def test_texts_without_tokens_or_beyond_the_context_are_refused(ours: TransformersBackend) -> None:
    with pytest.raises(InvalidInput, match="text 1"):
        await ours.divergence(["x", ""], adapter=TRIAL)
    with pytest.raises(PromptTooLong, match="128"):
        await ours.divergence(["river " * 200], adapter=TRIAL)
