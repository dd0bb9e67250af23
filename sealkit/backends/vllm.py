"""Adapters on a vLLM server at run time: loaded when first asked for, proven, counted, taken off again.

vLLM holds one adapter a request, so a policy's and a trial's are joined exactly first. The server must run with
`--enable-lora`, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and see the folder that adapters are written to.
https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import asyncio
import math
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
from sealkit.backends.probe import probe_tokens
from sealkit.backends.remote import Served
from sealkit.errors import AdapterMismatch, EndpointRefused, LimitExceeded, SealError, Unavailable
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, digest_of

log = structlog.get_logger(__name__)

_ASKED = 20
"""Most likely tokens that a vLLM server tells, as it is set up by default."""


class VllmOptions(BaseModel):
    """How adapters get to the server."""

    folder: str = Field(description="Where adapters are written for the server to read.")
    folder_there: str = Field("", description="The same folder as the server sees it; empty: the same path.")
    owner: str = Field("seal", pattern=r"^[a-z0-9-]{1,40}$", description="Whose adapters these are, on the server.")
    slots: int = Field(8, ge=1, description="Adapters on the server at once.")
    max_rank: int = Field(64, ge=1, description="The server's --max-lora-rank.")
    tolerance: float = Field(0.4, gt=0, description="Largest root mean square gap of the probe, in nats.")
    """On SmolLM2-135M served in bfloat16 an adapter is at most .29 off its own probe, two adapters .61 or more."""


@dataclass(slots=True)
class _Slot:
    name: str
    users: int = 0
    loading: asyncio.Task[None] | None = None
    folder: Path = field(default_factory=Path)


class VllmAdapters:
    """Implements `sealkit.backends.remote.AdapterHost`. `hold` raises AdapterNotFound, AdapterCorrupt, AdapterMismatch,
    LimitExceeded where ranks are more than the server takes, and what an Endpoint raises."""

    def __init__(self, store: AdapterStore, options: VllmOptions) -> None:
        self._store = store
        self._options = options
        self._folder = Path(options.folder)
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._freed = asyncio.Condition()
        self._held: Served | None = None

    async def start(self, served: Served) -> None:
        """Takes off what an earlier process of this owner left there."""
        self._held = served
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        for model in (await served.endpoint.json("GET", "/models")).get("data") or []:
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
        slot = await self._take(refs)
        try:
            assert slot.loading is not None
            await asyncio.shield(slot.loading)
            yield slot.name
        finally:
            async with self._freed:
                slot.users -= 1
                self._freed.notify_all()

    def lost(self, name: str) -> None:
        """The next who asks loads it again."""
        self._slots = OrderedDict((key, slot) for key, slot in self._slots.items() if slot.name != name)

    async def close(self) -> None:
        """Takes all off; a server that is away has nothing left to take off."""
        slots, self._slots = list(self._slots.values()), OrderedDict()
        for slot in slots:
            try:
                await self._remove(slot)
            except SealError as error:
                log.warning("adapter not unloaded", adapter=slot.name, message=error.message)

    # --- slots --------------------------------------------------------------------------------------------------------
    async def _take(self, refs: Sequence[AdapterRef]) -> _Slot:
        """The slot of these adapters with one more user: theirs, a free one, or that of the one unused for longest."""
        key = "+".join(ref.digest for ref in refs)
        async with self._freed:
            while True:
                if slot := self._slots.get(key):
                    self._slots.move_to_end(key)
                    break
                if len(self._slots) < self._options.slots:
                    slot = self._slots[key] = self._open(key, refs)
                    break
                idle = next((k for k, s in self._slots.items() if not s.users), None)
                if idle is None:
                    await self._freed.wait()
                else:
                    await self._remove(self._slots.pop(idle))
            slot.users += 1
            return slot

    def _open(self, key: str, refs: Sequence[AdapterRef]) -> _Slot:
        name = f"seal-{self._options.owner}-{digest_of(key)[:16]}"
        slot = _Slot(name, folder=self._folder / name)
        slot.loading = asyncio.create_task(self._load(key, slot, list(refs)))
        slot.loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # those who wait raise it
        return slot

    async def _load(self, key: str, slot: _Slot, refs: list[AdapterRef]) -> None:
        """Brings it to the server and proves it there; where that fails nothing is left behind."""
        try:
            await asyncio.to_thread(self._write, slot.folder, refs)
            there = Path(self._options.folder_there or self._options.folder) / slot.name
            body = {"lora_name": slot.name, "lora_path": str(there)}
            await self._served.endpoint.text("POST", "/load_lora_adapter", body)
            await self._prove(slot.name, refs[-1].digest)
        except BaseException:
            if self._slots.get(key) is slot:
                del self._slots[key]
            await asyncio.shield(self._take_off(slot))
            raise

    async def _remove(self, slot: _Slot) -> None:
        if slot.loading is not None:
            await asyncio.gather(slot.loading, return_exceptions=True)
        await self._take_off(slot)

    async def _take_off(self, slot: _Slot) -> None:
        try:
            await self._unload(slot.name)
        finally:
            await asyncio.to_thread(shutil.rmtree, slot.folder, ignore_errors=True)

    async def _unload(self, name: str) -> None:
        try:
            await self._served.endpoint.text("POST", "/unload_lora_adapter", {"lora_name": name})
        except EndpointRefused as error:
            if error.metadata.get("status") != "404":  # it is not there: that is what was wanted
                raise

    # --- an adapter ---------------------------------------------------------------------------------------------------
    def _write(self, folder: Path, refs: Sequence[AdapterRef]) -> None:
        weights = load_adapter(self._store.fetch(refs[0].digest))
        for ref in refs[1:]:
            weights = concatenate(weights, load_adapter(self._store.fetch(ref.digest)))
        if weights.config.rank > self._options.max_rank:
            raise LimitExceeded(
                f"the adapter has rank {weights.config.rank} and the server takes {self._options.max_rank}; start vLLM "
                f"with --max-lora-rank {weights.config.rank} or more and set the backend's max rank likewise",
                metadata={"limit": "rank", "allowed": str(self._options.max_rank), "asked": str(weights.config.rank)},
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in dump_adapter(weights, self._served.info.name).items():
            (folder / name).write_bytes(content)

    async def _prove(self, name: str, digest: str) -> None:
        """Compares what the server says to the probe text with what the trainer saw. A server that answers 200 with
        other weights than were asked for is caught here. Raises AdapterMismatch."""
        stored = (await asyncio.to_thread(self._store.manifest, digest)).get("probe_top")
        if not stored:
            log.warning("adapter has no probe, so only its digest proves it", digest=digest)
            return
        found = await self._likely(name)
        gap = probe_gap(stored, found)
        if not gap <= self._options.tolerance:
            raise AdapterMismatch(
                f"{self._served.endpoint.url} answers as another model than adapter {digest} under the name {name}: "
                f"the probe is {gap:.2f} nats off. Check that the server reads {self._options.folder} and serves the "
                "trainer's base model",
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
        }
        return read_likely(await self._served.endpoint.json("POST", "/completions", body, repeatable=True))

    def _ours(self, name: str) -> bool:
        return re.fullmatch(rf"seal-{re.escape(self._options.owner)}-[0-9a-f]{{16}}", name) is not None

    @property
    def _served(self) -> Served:
        assert self._held is not None, "start comes first"
        return self._held


def read_likely(reply: Mapping[str, Any]) -> dict[int, float]:
    """The most likely next tokens and their log-probabilities. Raises Unavailable where the server does not tell."""
    try:
        top = reply["choices"][0]["logprobs"]["top_logprobs"][0]
        return {int(token.removeprefix("token_id:")): float(logprob) for token, logprob in top.items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"the server tells no log-probabilities: {str(reply)[:200]}") from error


def probe_gap(stored: Sequence[Sequence[float]], found: Mapping[int, float]) -> float:
    """Root mean square gap, in nats, of the stored tokens' log-probabilities to those found; a token that is not among
    the likeliest there counts as the least likely of them, which makes the gap too small rather than too large."""
    least = min(found.values(), default=-math.inf)
    gaps = [found.get(int(token), min(least, logprob)) - logprob for token, logprob in stored]
    return math.sqrt(sum(gap * gap for gap in gaps) / len(gaps))
