"""Adapters by digest: fetched from the store off the event loop, checked once, kept in memory."""

from __future__ import annotations

import asyncio

from transformers import PreTrainedModel

from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.lora import check_fit, load_adapter
from sealkit.concurrency import Flights
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef


class AdapterCache:
    """At most `limit_bytes` of adapters, the least recently used making way."""

    def __init__(self, store: AdapterStore, model: PreTrainedModel, limit_bytes: int) -> None:
        self._store = store
        self._model = model
        self._kept: Flights[str, Adapter] = Flights(limit_bytes, _bytes)

    async def get(self, ref: AdapterRef) -> Adapter:
        """Raises AdapterNotFound, AdapterCorrupt (or not finite), AdapterMismatch (of another base model)."""
        adapter, _ = await self._kept.get(ref.digest, lambda: asyncio.to_thread(self._load, ref.digest))
        return adapter

    def _load(self, digest: str) -> Adapter:
        weights = load_adapter(self._store.fetch(digest))
        check_fit(weights, self._model)
        return Adapter.of(digest, weights, self._model.dtype)


def _bytes(adapter: Adapter) -> float:
    return float(sum(t.nbytes for pair in adapter.tensors.values() for t in pair))
