"""Adapters that are made of others without training: the sum of two, and the routes to many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sealkit.backends.lora import LoraWeights, concatenate, dump_adapter
from sealkit.errors import AdapterMismatch
from sealkit.routing import Route, dump_routes, refuse_routed, routed_digest
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, ModelInfo, digest_of


class Composer:
    """Composes adapters of one base model in one store. `load` reads the weights of one of them."""

    def __init__(self, store: AdapterStore, base: ModelInfo, load: Callable[[AdapterRef], LoraWeights]) -> None:
        self._store = store
        self._base = base
        self._load = load

    def join(self, under: AdapterRef | None, over: AdapterRef) -> AdapterRef:
        """The exact sum of two adapters; `over` itself if there is nothing below it."""
        digest = digest_of("joined", under.digest, over.digest) if under else over.digest
        if under is None or self._store.has(digest):
            return self._store.put(digest, self._store.fetch(digest), self._store.manifest(digest))
        above = self._store.manifest(over.digest)
        files = dump_adapter(concatenate(self._load(under), self._load(over)), self._base.name)
        manifest = {"base_model": self._base.model_dump(mode="json"), "joined": [under.digest, over.digest]}
        if above.get("policy_digest") == under.digest and "probe" in above:
            # They were measured with the lower adapter applied.
            manifest |= {name: above[name] for name in ("probe", "probe_top") if name in above}
        return self._store.put(digest, files, manifest)

    def route(self, routes: Sequence[Route]) -> AdapterRef:
        """The routed adapter of these routes. Raises AdapterNotFound if the store lacks one of their adapters,
        AdapterMismatch if one is routed itself, was trained over another one, or belongs to another base model."""
        for route in routes:
            self._check(route.adapter)
        files = dump_routes(routes)
        manifest = {
            "base_model": self._base.model_dump(mode="json"),
            "routed": [route.adapter.digest for route in routes],
        }
        return self._store.put(routed_digest(self._base.digest, routes), files, manifest)

    def _check(self, adapter: AdapterRef) -> None:
        manifest = self._store.manifest(adapter.digest)
        refuse_routed(manifest["files"])
        if under := manifest.get("policy_digest"):
            raise AdapterMismatch(
                f"adapter {adapter.digest} was trained over {under}, and does nothing useful without it; train on "
                'the bare base model (inner_loop.start_from = "base")'
            )
        base = manifest.get("base_model", {}).get("digest", self._base.digest)
        if base != self._base.digest:
            raise AdapterMismatch(
                f"adapter {adapter.digest} was trained on base model {base}, but this trainer has {self._base.name} "
                f"({self._base.digest}); learn its passage again with this model"
            )
