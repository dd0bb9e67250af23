"""The in-process backend: any causal language model of transformers, all rows in one continuous batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, TypeVar

import torch

from sealkit import limits
from sealkit.backends.base import Generation, OnText, pass_on
from sealkit.backends.decoding.adapters import AdapterCache
from sealkit.backends.decoding.batch_invariance import GREEDY, measure_batch_variance
from sealkit.backends.decoding.divergence import divergences, parts_of
from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.grammar import Grammar, Grammars
from sealkit.backends.decoding.loop import DecodeLoop
from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.decoding.row import Row
from sealkit.backends.decoding.stable import StableEngine
from sealkit.backends.models import LoadedModel, ModelSettings, load_model
from sealkit.backends.positions import LIMIT
from sealkit.backends.reasoning import ReasoningReader, TextStream
from sealkit.backends.template import render_prompt, text_tokens
from sealkit.errors import InvalidInput, PromptTooLong, Unavailable
from sealkit.observability.gpu import watch_gpus
from sealkit.observability.metrics import DECODE_BATCH_VARIANT_RATE
from sealkit.reasoning import Said
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, FinishReason, ModelInfo, Occupancy, Policy, Prompt, Sampling, Usage

T = TypeVar("T")


class TransformersBackend:
    """Implements `sealkit.backends.base.Backend`.

    `max_rows` rows decode at once and `max_waiting` more may wait; adapters of at most `adapter_bytes` stay in memory.
    The dtype `auto` means float32 on a CPU, where texts must not depend on the batch, and the model loader's choice
    elsewhere. With `deterministic` on, a row is bitwise the same in any batch (see `decoding/stable.py`); `auto` means
    on in half precision and off otherwise. In half precision with it off, the batch-variant rate is measured at the
    start.
    """

    name = "transformers"

    def __init__(
        self,
        model: ModelSettings,
        store: AdapterStore,
        *,
        max_rows: int = 32,
        max_waiting: int = 16384,
        adapter_bytes: int = 2 << 30,
        deterministic: Literal["auto", "on", "off"] = "auto",
    ) -> None:
        self.batch_variant_rate = 0.0
        self._settings = model
        self._deterministic = deterministic
        self._store = store
        self._max_rows = max_rows
        self._adapter_bytes = adapter_bytes
        self._loop = DecodeLoop(self._load, max_waiting=max_waiting)
        self._loaded: LoadedModel | None = None
        self._adapters: AdapterCache | None = None
        self._grammars: Grammars | None = None
        self._reader: ReasoningReader | None = None
        # One thread, because tokenizers are not thread-safe, and rendering must not block the event loop.
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def start(self) -> None:
        await asyncio.wrap_future(self._loop.start())
        self._adapters = AdapterCache(self._store, self._held, self._loop, self._adapter_bytes)
        self._grammars = Grammars(self._held.tokenizer)
        self._reader = ReasoningReader(self._held.tokenizer)
        if self._in_half_precision and self._deterministic == "off":
            self.batch_variant_rate = await measure_batch_variance(self._greedy_text)
        DECODE_BATCH_VARIANT_RATE.set(self.batch_variant_rate)
        watch_gpus()

    async def ended(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._loop.ended))

    async def close(self) -> None:
        await asyncio.to_thread(self._loop.close)
        self._rendering.shutdown(wait=False)  # rows that have just ended are still read
        self._loaded = self._adapters = None

    @property
    def info(self) -> ModelInfo:
        return self._held.info

    @property
    def occupancy(self) -> Occupancy:
        running, waiting = self._loop.rows
        return Occupancy(running=running, capacity=self._max_rows, waiting=waiting)

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        began = time.perf_counter()
        tokens = await self._render(prompt, answering=bool(sampling.json_schema))
        self._held.check_tokens("the prompt", tokens)
        room = self.info.context_length - len(tokens)
        if room < 1:
            raise self._too_long("the prompt", tokens, "with at least one for the completion; shorten the prompt")
        on_top = await self._adapters_of(policy, adapter)
        grammar = await self._grammar(sampling.json_schema) if sampling.json_schema else None
        row = Row(tokens, sampling, on_top, limit=min(sampling.max_tokens, room), grammar=grammar)
        assert self._reader is not None
        if on_text is None:
            await asyncio.wrap_future(self._loop.submit(row))
            said = await self._in_rendering_thread(partial(self._reader.split, row.text, tokens))
        else:
            said = await self._stream(row, self._reader, on_text)
        return Generation(
            text=said.text,
            reasoning=said.reasoning,
            finish_reason=row.finish_reason or FinishReason.LENGTH,
            usage=Usage(
                prompt_tokens=len(tokens),
                completion_tokens=len(row.tokens),
                device_seconds=row.device_seconds,
                wall_seconds=time.perf_counter() - began,
            ),
        )

    async def _stream(self, row: Row, reader: ReasoningReader, on_text: OnText) -> Said:
        """Decodes a row, and gives its text to `on_text` meanwhile; returns all of it."""
        loop, changed, sampled = asyncio.get_running_loop(), asyncio.Event(), 0

        def on_token(count: int) -> None:
            nonlocal sampled
            sampled = count
            loop.call_soon_threadsafe(changed.set)

        said = await self._in_rendering_thread(lambda: reader.stream(row.prompt, row.sampling.stop))
        row.on_token = on_token
        left = asyncio.wrap_future(self._loop.submit(row))
        left.add_done_callback(lambda _: changed.set())
        text = TextStream(reader)
        try:
            while True:
                await changed.wait()
                changed.clear()
                if left.done():
                    break
                # Of a row that has ended meanwhile too, only the tokens before its end: what follows is cut there.
                tokens = row.tokens[:sampled]
                so_far = await self._in_rendering_thread(partial(text.update, tokens))
                pass_on(said.update(so_far), on_text)
            await left
        finally:
            row.on_token = None
            left.cancel()
        pass_on(said.finish(row.text), on_text)
        return said.given

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:  # noqa: ARG002
        return policy

    async def divergence(
        self,
        texts: Sequence[Prompt | str],
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
    ) -> list[float]:
        read = [await self._render(text) for text in texts]
        for place, tokens in enumerate(read):
            if not tokens:
                raise InvalidInput(f"text {place} has no tokens; remove it")
            self._held.check_tokens(f"text {place}", tokens)
            if len(tokens) > self.info.context_length:
                raise self._too_long(f"text {place}", tokens, "shorten it")
        on_top = await self._adapters_of(policy, adapter)
        found: dict[int, float] = {}
        for part in parts_of(read, self._held.model.config.get_text_config().vocab_size):
            some = [read[place] for place in part]
            # One task per part, so that decoding rows wait for one part at most, and a cancelled call stops early.
            said = await asyncio.wrap_future(self._loop.do(partial(divergences, texts=some, adapters=on_top)))
            found.update(zip(part, said, strict=True))
        return [found[place] for place in range(len(read))]

    async def _render(self, text: Prompt | str, *, answering: bool = False) -> list[int]:
        tokenizer = self._held.tokenizer
        if isinstance(text, str):
            return await self._in_rendering_thread(partial(text_tokens, tokenizer, text))
        return await self._in_rendering_thread(partial(render_prompt, tokenizer, text, answering=answering))

    async def _grammar(self, schema: str) -> Grammar:
        assert self._grammars is not None
        return await self._in_rendering_thread(partial(self._grammars.make, schema))

    async def _in_rendering_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._rendering, work)

    async def _adapters_of(self, policy: Policy | None, adapter: AdapterRef | None) -> tuple[Adapter, ...]:
        """The policy's adapter, then the trial's."""
        assert self._adapters is not None
        refs = [ref for ref in (policy.adapter if policy else None, adapter) if ref is not None]
        if len({ref.digest for ref in refs}) < len(refs):
            raise InvalidInput(f"adapter {refs[0].digest} is the policy's own adapter; name it once")
        return tuple([await self._adapters.get(ref) for ref in refs])

    def _too_long(self, what: str, tokens: list[int], remedy: str) -> PromptTooLong:
        context = self.info.context_length
        return PromptTooLong(
            f"{what} has {len(tokens)} tokens, but the model's context has {context} ({self.info.build[LIMIT]}); "
            f"{remedy}",
            metadata={"prompt_tokens": str(len(tokens)), "context_length": str(context)},
        )

    @property
    def _held(self) -> LoadedModel:
        if self._loaded is None:
            raise Unavailable("the decoder has no model: it is not started, or is closed")
        return self._loaded

    def _load(self) -> Engine:
        """Runs in the decoding thread, so that torch's settings apply there."""
        settings = self._settings
        on_cpu = settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available())
        if settings.dtype == "auto" and on_cpu:
            settings = ModelSettings.model_validate(settings.model_dump() | {"dtype": "float32"})
        self._loaded = load_model(settings)
        on = self._deterministic == "on" or (self._deterministic == "auto" and self._in_half_precision)
        engine = (StableEngine if on else Engine)(self._loaded, max_rows=self._max_rows, max_rank=limits.RANK)
        most = engine.cache_bytes(self._loaded.info.context_length) / (1 << 30)
        self._loaded = self._loaded.with_build(
            deterministic="yes" if on else "no",
            cache=f"{most:.2f} GiB for {self._max_rows} full texts",
            **ReasoningReader(self._loaded.tokenizer).facts,
        )
        return engine

    @property
    def _in_half_precision(self) -> bool:
        return self._held.info.dtype in ("bfloat16", "float16")

    async def _greedy_text(self, prompt: Prompt) -> str:
        return (await self.generate(prompt, GREEDY)).text
