"""Adapters on a vLLM server at run time: loaded at first use, verified, reference-counted, unloaded.

vLLM applies one adapter per request, so a policy's and a trial's are first joined exactly. The server must run with
`--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and see the folder that adapters are written to.
https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, Field

from sealkit.backends.lora import concatenate, dump_adapter, load_adapter
from sealkit.backends.probe import Provenance, probe_gap, probe_tokens
from sealkit.backends.remote import Served
from sealkit.errors import AdapterMismatch, EndpointRefused, InvalidInput, LimitExceeded, SealError, Unavailable
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, digest_of

log = structlog.get_logger(__name__)

_ASKED = 20
"""Number of likely tokens that a vLLM server returns by default."""
_AS_ASKED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""vLLM takes what a request leaves out from the model's generation_config.json, but a run's sampling says it all."""
_GOODBYE_SECONDS = 20.0
"""Seconds to wait for a hanging server when an adapter is unloaded."""


class VllmOptions(BaseModel):
    """How adapters get to the server."""

    folder: str = Field(description="Folder that adapters are written to for the server.")
    folder_there: str = Field("", description="The same folder as the server sees it; empty: the same path.")
    owner: str = Field(
        "seal", pattern=r"^[a-z0-9-]{1,40}$", description="Owner of these adapters; part of their names on the server."
    )
    slots: int = Field(8, ge=1, description="Adapters on the server at once.")
    max_rank: int = Field(64, ge=1, description="The server's --max-lora-rank.")
    tolerance: float = Field(0.4, gt=0, description="Largest root mean square gap of the probe, in nats.")
    """On SmolLM2-135M served in bfloat16 an adapter differs from its own probe by at most .29, two adapters by .61 or
    more."""


@dataclass(slots=True)
class _Slot:
    name: str
    users: int = 0
    loading: asyncio.Task[None] | None = None
    folder: Path = field(default_factory=Path)


class VllmAdapters:
    """Implements `sealkit.backends.remote.AdapterHost`. `hold` raises InvalidInput if an adapter is named twice,
    AdapterNotFound, AdapterCorrupt, AdapterMismatch, LimitExceeded if the rank is above the server's limit, and what an
    Endpoint raises."""

    fixed = False
    extra: Mapping[str, Any] = _AS_ASKED

    def __init__(self, store: AdapterStore, options: VllmOptions) -> None:
        self._store = store
        self._options = options
        self._folder = Path(options.folder)
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """Unload tasks by key; the request that started one may have ended."""
        self._freed = asyncio.Event()
        self._held: Served | None = None

    async def start(self, served: Served) -> None:
        """Unloads what an earlier process of this owner left on the server."""
        self.extra = {**_AS_ASKED, "stop_token_ids": sorted(served.end_ids)}
        self._held = served
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        for model in (await served.endpoint.json("GET", "/models", repeatable=True)).get("data") or []:
            if self._ours(str(model.get("id"))):
                log.info("adapter left by an earlier process", adapter=model["id"])
                await self._unload(str(model["id"]))
        for left in self._folder.iterdir():
            if self._ours(left.name):
                await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)

    @asynccontextmanager
    async def hold(self, refs: Sequence[AdapterRef]) -> AsyncIterator[str]:
        if not refs:
            yield self._served.name
            return
        if len({ref.digest for ref in refs}) < len(refs):
            raise InvalidInput(f"adapter {refs[0].digest} is the policy's own already; name it once")
        slot = await self._take(refs)
        try:
            assert slot.loading is not None
            await asyncio.shield(slot.loading)
            yield slot.name
        finally:
            slot.users -= 1
            self._freed.set()

    def lost(self, name: str) -> None:
        """The next request loads it again."""
        for key, slot in list(self._slots.items()):
            if slot.name == name and slot.loading is not None and slot.loading.done():
                del self._slots[key]
        self._freed.set()

    async def close(self) -> None:
        """Unloads all adapters; a server that is not reachable is skipped."""
        for key in list(self._slots):
            self._evict(key)
        await asyncio.gather(*self._leaving.values())

    # --- slots --------------------------------------------------------------------------------------------------------
    async def _take(self, refs: Sequence[AdapterRef]) -> _Slot:
        """The slot of these adapters with one more user: their own, a free one, or the least recently used one."""
        key = "+".join(ref.digest for ref in refs)
        while key not in self._slots:
            if key not in self._leaving and len(self._slots) + len(self._leaving) < self._options.slots:
                self._slots[key] = self._open(key, refs)
                break
            self._freed.clear()
            idle = next((k for k, s in self._slots.items() if not s.users), None)
            if idle is not None and not self._leaving:
                self._evict(idle)
            await self._freed.wait()
        slot = self._slots[key]
        self._slots.move_to_end(key)
        slot.users += 1
        return slot

    def _open(self, key: str, refs: Sequence[AdapterRef]) -> _Slot:
        name = f"seal-{self._options.owner}-{digest_of(key)[:16]}"
        slot = _Slot(name, folder=self._folder / name)
        slot.loading = asyncio.create_task(self._load(key, slot, list(refs)))
        slot.loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # the waiters raise it
        return slot

    async def _load(self, key: str, slot: _Slot, refs: list[AdapterRef]) -> None:
        """Loads it on the server and verifies it there; on failure it is unloaded again."""
        try:
            origin = await asyncio.to_thread(self._write, slot.folder, refs)
            await self._put_on(slot.name)
            await self._verify(slot.name, refs, origin)
        except BaseException:
            # Its slot is free only after the unload: a second load under the same name must not overlap the first.
            await asyncio.shield(self._take_off(slot))
            if self._slots.get(key) is slot:
                del self._slots[key]
            self._freed.set()
            raise

    def _evict(self, key: str) -> None:
        slot = self._slots.pop(key)

        async def leave() -> None:
            if slot.loading is not None:
                await asyncio.gather(slot.loading, return_exceptions=True)
            await self._take_off(slot)

        def left(_: asyncio.Task[None]) -> None:
            del self._leaving[key]
            self._freed.set()

        self._leaving[key] = asyncio.create_task(leave())
        self._leaving[key].add_done_callback(left)

    async def _put_on(self, name: str) -> None:
        """Loads the adapter from the folder of that name. One that the server has under this name already is from an
        earlier process, or from a request whose reply was lost: it is unloaded first."""
        there = Path(self._options.folder_there or self._options.folder) / name
        body = {"lora_name": name, "lora_path": str(there)}
        try:
            await self._served.endpoint.text("POST", "/load_lora_adapter", body)
        except EndpointRefused as error:
            if error.metadata.get("status") == "404":
                raise EndpointRefused(
                    f"{error.message}; vLLM must see {self._options.folder} as {there.parent}, and run with "
                    " --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
                    metadata=error.metadata,
                ) from error
            if error.metadata.get("status") != "400":
                raise
            await self._unload(name)
            await self._served.endpoint.text("POST", "/load_lora_adapter", body)

    async def _take_off(self, slot: _Slot) -> None:
        """Removes it from the server and from the folder. An unreachable server keeps it until the next start."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._unload(slot.name)
        except (SealError, TimeoutError) as error:
            log.warning("adapter not unloaded", adapter=slot.name, message=str(error) or "no answer")
        finally:
            await asyncio.to_thread(shutil.rmtree, slot.folder, ignore_errors=True)

    async def _unload(self, name: str) -> None:
        try:
            await self._served.endpoint.text("POST", "/unload_lora_adapter", {"lora_name": name}, repeatable=True)
        except EndpointRefused as error:
            if error.metadata.get("status") != "404":  # not loaded there: nothing to do
                raise

    # --- an adapter ---------------------------------------------------------------------------------------------------
    def _write(self, folder: Path, refs: Sequence[AdapterRef]) -> Provenance:
        """The adapters joined into one, as PEFT's files, and the origin of the last of them."""
        origins = [Provenance.of(ref.digest, self._store.manifest(ref.digest)) for ref in refs]
        for ref, origin in zip(refs, origins, strict=True):
            origin.check_base(ref.digest, self._served.info.digest)
        weights = load_adapter(self._store.fetch(refs[0].digest))
        for ref in refs[1:]:
            weights = concatenate(weights, load_adapter(self._store.fetch(ref.digest)))
        if weights.config.rank > self._options.max_rank:
            raise LimitExceeded(
                f"the adapter has rank {weights.config.rank}, but the server takes {self._options.max_rank}; start "
                f"vLLM with --max-lora-rank {weights.config.rank} or more, and set the backend's max rank to the same",
                metadata={"limit": "rank", "allowed": str(self._options.max_rank), "asked": str(weights.config.rank)},
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in dump_adapter(weights, self._served.info.name).items():
            (folder / name).write_bytes(content)
        return origins[-1]

    async def _verify(self, name: str, refs: Sequence[AdapterRef], origin: Provenance) -> None:
        """Compares the server's probe with the trainer's. This detects a server that answers 200 with the wrong
        weights. Raises AdapterMismatch."""
        digest = refs[-1].digest
        if not origin.probe_top or origin.policy_digest != "".join(ref.digest for ref in refs[:-1]):
            log.warning("these adapters have no probe; verified by digest only", digest=digest)
            return
        gap = probe_gap(origin.probe_top, await self._likely(name))
        if not gap <= self._options.tolerance:
            raise AdapterMismatch(
                f"{self._served.endpoint.url} does not answer as adapter {digest} under the name {name}: "
                f"the probe differs by {gap:.2f} nats. Check that the server reads {self._options.folder} and serves "
                "the trainer's base model",
                metadata={"digest": digest, "gap": f"{gap:.4f}"},
            )

    async def _likely(self, name: str) -> dict[int, float]:
        body = {
            "model": name,
            "prompt": probe_tokens(self._served.tokenizer),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": _ASKED,
            "return_tokens_as_token_ids": True,
            **_AS_ASKED,
        }
        try:
            return read_likely(await self._served.endpoint.json("POST", "/completions", body, repeatable=True))
        except EndpointRefused as error:
            if error.metadata.get("status") != "404":
                raise
            raise Unavailable(f"the server does not know {name}, which was just loaded; did it restart?") from error

    def _ours(self, name: str) -> bool:
        return re.fullmatch(rf"seal-{re.escape(self._options.owner)}-[0-9a-f]{{16}}", name) is not None

    @property
    def _served(self) -> Served:
        assert self._held is not None, "call start first"
        return self._held


def read_likely(reply: Mapping[str, Any]) -> dict[int, float]:
    """The most likely next tokens and their log-probabilities. Raises Unavailable if the server returns none."""
    try:
        top = reply["choices"][0]["logprobs"]["top_logprobs"][0]
        return {int(token.removeprefix("token_id:")): float(logprob) for token, logprob in top.items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"the server returns no log-probabilities: {str(reply)[:200]}") from error
