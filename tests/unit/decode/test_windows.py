"""Models with a sliding window are decoded past it, as transformers decodes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sealkit.backends.models import ModelSettings
from sealkit.backends.template import render_prompt
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import PromptTooLong
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_tokenizer
from sealkit.types import Prompt, PromptFormat, Sampling

WINDOW = 16
KINDS: dict[str, dict[str, Any]] = {
    "mistral": {},  # every layer has the window
    "phi3": {"pad_token_id": 0},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},  # the first layer has none
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 8},
    "cohere2": {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 8},
}
LONG = "The lighthouse at Veldermoor was built in 1847 by the engineer Ana Tressik. "
PROMPTS = [Prompt(user=LONG + text, format=PromptFormat.PLAIN) for text in ("Who", "The river is called", "The town")]
GREEDY = Sampling(temperature=0, max_tokens=24)


def make(folder: Path, kind: str) -> Path:
    tokenizer = make_tiny_tokenizer()
    config = AutoConfig.for_model(
        kind, vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, sliding_window=WINDOW, initializer_range=0.3,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, **KINDS[kind],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model with a window, and what transformers answers to PROMPTS."""
    folder = make(tmp_path_factory.mktemp("window") / request.param, request.param)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    wanted = []
    for prompt in PROMPTS:
        ids = torch.tensor([render_prompt(tokenizer, prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        wanted.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return folder, wanted


@pytest.mark.parametrize("deterministic", ["off", "on"])
async def test_rows_past_the_window_are_those_of_transformers(
    reference: tuple[Path, list[str]], deterministic: Literal["on", "off"], tmp_path: Path
) -> None:
    folder, wanted = reference
    backend = TransformersBackend(
        ModelSettings(model=str(folder), device="cpu"), AdapterStore((tmp_path / "store").as_uri()), max_rows=4,
        deterministic=deterministic,
    )  # fmt: skip
    await backend.start()
    try:
        first = await backend.generate(PROMPTS[0], GREEDY)
        rest = await asyncio.gather(*(backend.generate(prompt, GREEDY) for prompt in PROMPTS))  # with a shared prefix
        assert first.usage.prompt_tokens > WINDOW
        assert [first.text, *(got.text for got in rest)] == [wanted[0], *wanted]
        assert backend.info.context_length == 128
        assert backend.info.build["window"].startswith("16 tokens in ")
        with pytest.raises(PromptTooLong, match=r"context has 128 \(max_position_embeddings\)"):
            await backend.generate(Prompt(user=LONG * 40, format=PromptFormat.PLAIN), GREEDY)
    finally:
        await backend.close()
