"""A model's tokenizer and config without weights worth the name, a store of adapters, and a server to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from sealkit.backends.lora import WEIGHTS_FILE, LoraWeights, concatenate, dump_adapter
from sealkit.backends.models import describe_model
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import AdapterRef, LoraConfig, ModelInfo, digest_of
from tests.serving import FakeVllm, says, serving


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("served") / "model", hidden=16, layers=1, context=128)


@pytest.fixture(scope="session")
def info(model: Path) -> ModelInfo:
    return describe_model(str(model))[1]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Shelf:
    """Adapters of one module in a store, each with the probe that a faithful server says of it."""

    store: AdapterStore
    info: ModelInfo
    ranks: dict[str, int] = field(default_factory=dict)

    def weights(self, name: str) -> LoraWeights:
        rank = self.ranks.get(name, 4)
        noise = torch.Generator().manual_seed(len(name) + sum(map(ord, name)))
        a, b = torch.randn(rank, 16, generator=noise), torch.randn(16, rank, generator=noise)
        config = LoraConfig(rank=rank, alpha=rank, target_modules=("q_proj",))
        return LoraWeights(config, {"model.layers.0.self_attn.q_proj": (a, b)})

    def put(self, name: str, *, rank: int = 4, over: str = "", **manifest: Any) -> AdapterRef:
        """`over`: the name of the adapter that it was trained over."""
        self.ranks[name] = rank
        weights = self.weights(name)
        told = concatenate(self.weights(over), weights) if over else weights
        note = {
            "base_model": {"digest": self.info.digest},
            "policy_digest": digest_of(over) if over else "",
            "probe_top": says(dump_adapter(told, self.info.name)[WEIGHTS_FILE]),
        }
        return self.store.put(digest_of(name), dump_adapter(weights, self.info.name), note | manifest)

    def bytes_of(self, name: str) -> bytes:
        return dump_adapter(self.weights(name), self.info.name)[WEIGHTS_FILE]


@pytest.fixture
def shelf(tmp_path: Path, info: ModelInfo) -> Shelf:
    return Shelf(AdapterStore((tmp_path / "store").as_uri()), info)


@pytest.fixture
async def vllm(model: Path) -> AsyncIterator[FakeVllm]:
    server = FakeVllm(tokenizer=AutoTokenizer.from_pretrained(model))
    async with serving(server):
        yield server


Make = Callable[..., Any]
