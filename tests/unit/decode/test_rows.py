"""Rows end, wait, are refused and are given up as asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from sealkit.backends.decoding.engine import Engine
from sealkit.backends.lora import LoraWeights, dump_adapter
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import (
    AdapterCorrupt,
    AdapterMismatch,
    AdapterNotFound,
    InvalidModel,
    PromptTooLong,
    QueueFull,
    Unavailable,
)
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, FinishReason, LoraConfig, Prompt, PromptFormat, Sampling

PROMPT = Prompt(user="the town", format=PromptFormat.PLAIN)
LONG = Sampling(temperature=1, max_tokens=100, seed=5)


async def test_max_tokens_is_kept(backend: TransformersBackend) -> None:
    got = await backend.generate(PROMPT, Sampling(temperature=0, max_tokens=3))
    assert (got.usage.completion_tokens, got.finish_reason) == (3, FinishReason.LENGTH)


async def test_a_stop_string_ends_the_text_and_is_cut_off(backend: TransformersBackend) -> None:
    whole = (await backend.generate(PROMPT, LONG)).text
    stop = whole[10:14]
    got = await backend.generate(PROMPT, LONG.model_copy(update={"stop": ("never in there", stop)}))
    assert got.text == whole[: whole.index(stop)]
    assert got.finish_reason is FinishReason.STOP
    assert got.usage.completion_tokens < 100


async def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(backend: TransformersBackend) -> None:
    with pytest.raises(PromptTooLong, match="128"):
        await backend.generate(Prompt(user="river " * 200, format=PromptFormat.PLAIN), LONG)


async def test_cancelled_rows_make_room(backend: TransformersBackend) -> None:
    endless = [asyncio.ensure_future(backend.generate(PROMPT, LONG)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in endless:
        task.cancel()
    await asyncio.gather(*endless, return_exceptions=True)
    got = await asyncio.wait_for(backend.generate(PROMPT, Sampling(temperature=0, max_tokens=2)), 5)
    assert got.usage.completion_tokens == 2


async def test_a_full_queue_says_when_to_come_again(model: Path, tmp_path: Path) -> None:
    backend = TransformersBackend(
        ModelSettings(model=str(model), device="cpu"), AdapterStore(tmp_path.as_uri()), max_rows=1, max_waiting=2
    )
    await backend.start()
    try:
        got = await asyncio.gather(*(backend.generate(PROMPT, LONG) for _ in range(12)), return_exceptions=True)
    finally:
        await backend.close()
    refused = [g for g in got if isinstance(g, QueueFull)]
    assert refused
    assert all(r.retry_after and r.retry_after >= 1 for r in refused)
    assert len(refused) < 12


async def test_close_refuses_what_waits_and_finishes_what_runs(model: Path, tmp_path: Path) -> None:
    backend = TransformersBackend(
        ModelSettings(model=str(model), device="cpu"), AdapterStore(tmp_path.as_uri()), max_rows=2
    )
    await backend.start()
    first = asyncio.ensure_future(backend.generate(PROMPT, Sampling(temperature=0, max_tokens=1)))
    await first
    rest = [asyncio.ensure_future(backend.generate(PROMPT, LONG)) for _ in range(30)]
    await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
    await backend.close()
    ends = await asyncio.gather(*rest, return_exceptions=True)
    assert {type(e).__name__ for e in ends} == {"Generation", "Unavailable"}
    with pytest.raises(Unavailable):
        await backend.generate(PROMPT, LONG)


async def test_a_crash_fails_everyone_and_says_why(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Engine) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(Engine, "step", crash)
    ends = await asyncio.gather(*(backend.generate(PROMPT, LONG) for _ in range(9)), return_exceptions=True)
    assert all(isinstance(e, Unavailable) and "no memory left" in e.message for e in ends)


async def test_a_folder_without_a_model_is_said_at_the_start(tmp_path: Path) -> None:
    backend = TransformersBackend(ModelSettings(model=str(tmp_path)), AdapterStore(tmp_path.as_uri()))
    with pytest.raises(InvalidModel):
        await backend.start()


class TestAdapters:
    CONFIG = LoraConfig(rank=2, alpha=4, target_modules=("q_proj",))

    def put(self, store: AdapterStore, digest: str, width: int = 64, fill: float = 0.1) -> AdapterRef:
        tensors = {"model.layers.0.self_attn.q_proj": (torch.full((2, width), fill), torch.full((64, 2), fill))}
        return store.put(digest, dump_adapter(LoraWeights(self.CONFIG, tensors), "tiny"), {})

    async def test_one_that_is_not_there(self, backend: TransformersBackend) -> None:
        with pytest.raises(AdapterNotFound):
            await backend.generate(PROMPT, LONG, adapter=AdapterRef(digest="0" * 64))

    async def test_one_whose_bytes_changed(self, backend: TransformersBackend, tmp_path: Path) -> None:
        store = AdapterStore(tmp_path.as_uri())
        ref = self.put(store, "1" * 64)
        folder = store.local_path(ref.digest)
        assert folder is not None
        (folder / "adapter_model.safetensors").write_bytes(b"other bytes")
        with pytest.raises(AdapterCorrupt):
            await backend.generate(PROMPT, LONG, adapter=ref)

    async def test_one_of_another_model(self, backend: TransformersBackend, tmp_path: Path) -> None:
        ref = self.put(AdapterStore(tmp_path.as_uri()), "2" * 64, width=32)
        with pytest.raises(AdapterMismatch):
            await backend.generate(PROMPT, LONG, adapter=ref)

    async def test_one_that_diverged_is_refused_before_it_reaches_other_rows(
        self, backend: TransformersBackend, tmp_path: Path
    ) -> None:
        ref = self.put(AdapterStore(tmp_path.as_uri()), "3" * 64, fill=float("nan"))
        with pytest.raises(AdapterCorrupt, match="finite"):
            await backend.generate(PROMPT, LONG, adapter=ref)

    async def test_one_that_overflows_fails_alone(self, backend: TransformersBackend, tmp_path: Path) -> None:
        ref = self.put(AdapterStore(tmp_path.as_uri()), "4" * 64, fill=1e30)
        alone = await backend.generate(PROMPT, LONG)
        beside, broken = await asyncio.gather(
            backend.generate(PROMPT, LONG), backend.generate(PROMPT, LONG, adapter=ref), return_exceptions=True
        )
        assert "not finite" in str(broken)
        assert getattr(beside, "text", "") == alone.text
        again = await asyncio.gather(*(backend.generate(PROMPT, LONG) for _ in range(4)))
        assert [g.text for g in again] == [alone.text] * 4
