"""A row's text is what the model gives it alone, whoever shares its batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import pytest

from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import AdapterRef, Policy, Prompt, PromptFormat, Sampling, digest_of

ADAPTERS: dict[str, dict[str, Any]] = {
    "wide": {"r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]},
    "narrow": {"r": 2, "lora_alpha": 16, "target_modules": ["down_proj", "gate_proj"]},
    "policy": {"r": 5, "lora_alpha": 10, "target_modules": ["q_proj", "down_proj", "up_proj"]},
}
TOPICS = ("the river", "a machine that writes books, and the town in which it was built in 1847", "Ana", "x")
SETTINGS: list[tuple[str, ...]] = [(), ("wide",), ("narrow",), ("policy",), ("policy", "wide"), ("policy", "narrow")]
TOKENS = 12


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def peft(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PeftReference:
    arch: Literal["llama", "qwen2"] = request.param
    return PeftReference(make_tiny_model(tmp_path_factory.mktemp(arch) / "model", arch, context=256), ADAPTERS)


@pytest.fixture
async def ours(peft: PeftReference) -> AsyncIterator[TransformersBackend]:
    """On the same model, with the same adapters in its store."""
    store = AdapterStore("memory://exactness")
    for name in ADAPTERS:
        store.put(digest_of(name, str(peft.folder)), peft.files(name), {})
    backend = TransformersBackend(ModelSettings(model=str(peft.folder), device="cpu"), store, max_rows=7)
    await backend.start()
    yield backend
    await backend.close()


async def answer(ours: TransformersBackend, peft: PeftReference, prompt: Prompt, names: Sequence[str]) -> str:
    refs = {name: AdapterRef(digest=digest_of(name, str(peft.folder))) for name in names}
    policy = Policy(name="policies/p", adapter=refs.pop("policy", None))
    trial = next(iter(refs.values()), None)
    return (await ours.generate(prompt, Sampling(temperature=0, max_tokens=TOKENS), policy=policy, adapter=trial)).text


async def test_rows_of_unlike_adapters_answer_as_peft_does_one_at_a_time(
    ours: TransformersBackend, peft: PeftReference
) -> None:
    """Unlike ranks and targets, base rows and policy ⊕ trial rows in one batch; 24 rows through 7 places, so rows join
    midway, and prompts of one adapter share their beginning."""
    asked = [(Prompt(user=f"Tell me about {t}."), names) for t in TOPICS for names in SETTINGS]
    texts = await asyncio.gather(*(answer(ours, peft, *one) for one in asked))
    assert texts == [peft.answer(*one, TOKENS) for one in asked]
    assert len(set(texts)) > 15, "the adapters must make a difference for this to mean anything"


async def test_adapters_leave_no_trace_on_the_base_model(ours: TransformersBackend, peft: PeftReference) -> None:
    prompt = Prompt(user="the town", format=PromptFormat.PLAIN)
    before = await answer(ours, peft, prompt, ())
    with_adapter = await answer(ours, peft, prompt, ("wide",))
    assert await answer(ours, peft, prompt, ()) == before == peft.answer(prompt, (), TOKENS) != with_adapter


async def test_sampled_text_is_the_same_alone_and_in_company(backend: TransformersBackend) -> None:
    prompt, other = Prompt(user="the river"), Prompt(user="the lighthouse at Veldermoor and what was built there")
    sampling = Sampling(temperature=0.9, top_p=0.9, max_tokens=40)

    async def sample(seed: int, p: Prompt = prompt) -> str:
        return (await backend.generate(p, sampling.model_copy(update={"seed": seed}))).text

    alone = [await sample(seed) for seed in range(6)]
    company = asyncio.gather(*(sample(seed, other) for seed in range(100, 105)))
    together = await asyncio.gather(*(sample(seed) for seed in reversed(range(6))))
    await company
    assert list(reversed(together)) == alone
    assert len(set(alone)) == 6


async def test_context_length_bounds_a_row(backend: TransformersBackend) -> None:
    got = await backend.generate(
        Prompt(user="river " * 20, format=PromptFormat.PLAIN), Sampling(temperature=1, max_tokens=500, seed=3)
    )
    assert got.usage.prompt_tokens + got.usage.completion_tokens <= backend.info.context_length
