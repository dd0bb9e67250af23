"""A backend whose policies may be routed (`sealkit.routing`): each prompt is answered with the adapter of the passage
that it is about, or with the bare base model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from sealkit.backends.base import Backend, Generation, OnText
from sealkit.concurrency import SingleFlightCache, gather_or_cancel
from sealkit.errors import InvalidInput
from sealkit.observability.metrics import ROUTED_PROMPTS
from sealkit.routing import ROUTES_FILE, Router, load_routes
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, ModelInfo, Occupancy, Policy, Prompt, Sampling

_KEPT = 256
"""Policies whose routes are in memory, or that are known to have none."""


class RoutedBackend:
    """Implements `sealkit.backends.base.Backend` over another one, `behind`, which decodes."""

    def __init__(self, backend: Backend, store: AdapterStore) -> None:
        self.name = backend.name
        self.batch_variant_rate = 0.0
        self.behind = backend
        self._store = store
        self._routers: SingleFlightCache[str, Router | None] = SingleFlightCache(_KEPT)

    async def start(self) -> None:
        await self.behind.start()
        self.batch_variant_rate = self.behind.batch_variant_rate

    async def ended(self) -> None:
        await self.behind.ended()

    async def close(self) -> None:
        await self.behind.close()

    @property
    def info(self) -> ModelInfo:
        return self.behind.info

    @property
    def occupancy(self) -> Occupancy | None:
        return self.behind.occupancy

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        if adapter is None:
            policy = await self.route(prompt, policy)
        elif await self._router(policy):
            raise InvalidInput("the policy is routed: no adapter can be on top of it; name a policy with weights")
        return await self.behind.generate(prompt, sampling, policy=policy, adapter=adapter, on_text=on_text)

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:
        router = await self._router(policy)
        if router is None:
            return policy
        adapter = router.choose(prompt)
        ROUTED_PROMPTS.labels("adapter" if adapter else "base").inc()
        return Policy(name="route", adapter=adapter) if adapter else None

    async def divergence(
        self,
        texts: Sequence[Prompt | str],
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
    ) -> list[float] | None:
        if adapter is not None or await self._router(policy) is None:
            return await self.behind.divergence(texts, policy=policy, adapter=adapter)
        places: dict[Policy | None, list[int]] = defaultdict(list)
        for place, text in enumerate(texts):
            places[await self.route(text, policy)].append(place)
        found = await gather_or_cancel(
            *(self.behind.divergence([texts[i] for i in of], policy=one) for one, of in places.items())
        )
        values = dict[int, float]()
        for of, some in zip(places.values(), found, strict=True):
            if some is None:
                return None
            values.update(zip(of, some, strict=True))
        return [values[place] for place in range(len(texts))]

    async def _router(self, policy: Policy | None) -> Router | None:
        """None if the policy is not routed."""
        if policy is None or policy.adapter is None:
            return None
        digest = policy.adapter.digest
        router, _ = await self._routers.get(digest, lambda: asyncio.to_thread(self._read, digest))
        return router

    def _read(self, digest: str) -> Router | None:
        files = self._store.manifest(digest)["files"]
        return Router(load_routes(self._store.fetch(digest))) if ROUTES_FILE in files else None
