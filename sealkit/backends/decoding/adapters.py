"""Adapters by digest: fetched from the store off the event loop, verified, cached in memory."""

from __future__ import annotations

import asyncio
from functools import partial

import torch

from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.loop import DecodeLoop
from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.lora import check_fit, load_adapter
from sealkit.backends.models import LoadedModel
from sealkit.backends.probe import Provenance, probe_of, probe_tokens
from sealkit.concurrency import SingleFlightCache
from sealkit.errors import AdapterMismatch
from sealkit.observability.metrics import CACHE_LOOKUPS
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef


class AdapterCache:
    """At most `limit_bytes` of adapters; the least recently used are evicted.

    An adapter is used only after verification: its files have the hashes of the manifest, the manifest belongs to the
    digest and to this base model, and the engine that will decode reproduces the probe logits that the trainer stored.
    Adapters without a probe (from other sources) are verified by their hashes only.
    """

    def __init__(self, store: AdapterStore, held: LoadedModel, loop: DecodeLoop, limit_bytes: int) -> None:
        self._store = store
        self._held = held
        self._loop = loop
        self._kept: SingleFlightCache[str, Adapter] = SingleFlightCache(limit_bytes, _bytes)
        self._probe = probe_tokens(held.tokenizer)

    async def get(self, ref: AdapterRef) -> Adapter:
        """Raises AdapterNotFound (also for the policy that it was trained over), AdapterCorrupt (also for weights that
        are not finite), AdapterMismatch (another base model, or another adapter than the one requested)."""
        return await self._get(ref.digest, above=())

    async def _get(self, digest: str, above: tuple[str, ...]) -> Adapter:
        if digest in above:
            raise AdapterMismatch(
                f"adapter {digest} claims that it was trained over itself", metadata={"digest": digest}
            )
        adapter, fresh = await self._kept.get(digest, lambda: self._verify(digest, above))
        CACHE_LOOKUPS.labels("adapter", "miss" if fresh else "hit").inc()
        return adapter

    async def _verify(self, digest: str, above: tuple[str, ...]) -> Adapter:
        origin, adapter = await asyncio.to_thread(self._load, digest)
        if not origin.probe:
            return adapter
        policy = origin.policy_digest
        beneath = (await self._get(policy, (*above, digest)),) if policy else ()
        found = await asyncio.wrap_future(self._loop.do(partial(self._read_probe, adapters=(*beneath, adapter))))
        try:
            origin.check(digest, found, self._held.info.dtype)
        except AdapterMismatch:
            self._loop.do(lambda engine: engine.forget(adapter))
            raise
        return adapter

    def _load(self, digest: str) -> tuple[Provenance, Adapter]:
        origin = Provenance.of(digest, self._store.manifest(digest))
        origin.check_base(digest, self._held.info.digest)
        weights = load_adapter(self._store.fetch(digest))
        check_fit(weights, self._held.model)
        return origin, Adapter.of(digest, weights, self._held.model.dtype)

    def _read_probe(self, engine: Engine, adapters: tuple[Adapter, ...]) -> tuple[float, ...]:
        """Runs in the decoding thread, on the same code path as the adapter's rows."""
        with engine.reading([adapters]) as model:
            ids = torch.tensor([self._probe], device=model.device)
            return probe_of(model(input_ids=ids, use_cache=False).logits[0, -1])


def _bytes(adapter: Adapter) -> float:
    return float(sum(t.nbytes for pair in adapter.tensors.values() for t in pair))
