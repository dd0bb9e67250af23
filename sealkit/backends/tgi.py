"""The backend on Hugging Face's Text Generation Inference, through `huggingface_hub`'s client.

TGI loads no adapter at run time: it serves the model that it was started with (a policy may be merged into it) and the
adapters that it was started with. For an adapter that it does not have it answers 200 with the base model's text (its
issue 2505), so each is verified at the start. TGI is in maintenance mode: prefer vLLM for new deployments.
https://huggingface.co/docs/text-generation-inference
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
from huggingface_hub import TextGenerationOutput
from pydantic import BaseModel, Field
from transformers import PreTrainedTokenizerBase

from sealkit.backends.base import Generation, OnText
from sealkit.backends.openai import AGREEMENT, FIXED_ADAPTERS, NO_DIVERGENCE, ServedModel
from sealkit.backends.positions import LIMIT
from sealkit.backends.probe import PROBE_TEXT, Provenance, probe_gap
from sealkit.backends.reasoning import ReasoningReader
from sealkit.backends.remote import SharedTime
from sealkit.backends.template import render_prompt, rendered_text
from sealkit.backends.tgi_client import TgiClient
from sealkit.endpoint import EndpointOptions
from sealkit.errors import AdapterMismatch, InvalidInput, InvalidModel, PromptTooLong, Unavailable, Unsupported
from sealkit.schema import read_schema
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, FinishReason, ModelInfo, Policy, Prompt, Sampling, Usage

log = structlog.get_logger(__name__)

_TOP = 5
"""Number of likely tokens that TGI returns by default."""


class TgiOptions(BaseModel):
    """What this TGI was started with."""

    adapters: dict[str, str] = Field(
        default_factory=dict, description="By digest: the adapter_id under which TGI has it, from --lora-adapters."
    )
    merged: str = Field("", description="Digest of the policy's adapter that is merged into the served model.")
    tolerance: float = Field(0.4, gt=0, description="Largest difference of an adapter's probe, in nats.")
    wait_seconds: float = Field(600, ge=0, description="Seconds that the server may take to load its model.")


class TgiBackend:
    """Implements `sealkit.backends.base.Backend`. `generate` raises Unsupported for an adapter that TGI was not started
    with, and what the client raises."""

    name = "tgi"
    batch_variant_rate = 0.0
    occupancy = None

    def __init__(self, model: ServedModel, options: EndpointOptions, tgi: TgiOptions, store: AdapterStore) -> None:
        """Raises InvalidConfig if the key is missing."""
        self._model = model
        self._tgi = tgi
        self._store = store
        self._client = TgiClient(options)
        self._time = SharedTime()
        self._held: tuple[PreTrainedTokenizerBase, ModelInfo, ReasoningReader] | None = None
        self._closed = asyncio.Event()
        self._most_prompt = self._most_tokens = self._most_stops = 0
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def start(self) -> None:
        """Waits for the model, and checks that it is the right one, tokenizes alike, and has the adapters.

        Raises InvalidModel, AdapterMismatch, AdapterNotFound, and Unavailable after `wait_seconds`.
        """
        tokenizer, info, _ = await asyncio.to_thread(self._model.describe)
        await self._client.wait(self._tgi.wait_seconds)
        said = await self._client.info()
        if said.get("model_id") != self._model.served_as:
            raise InvalidModel(f"{self._client.url} serves {said.get('model_id')!r}, not {self._model.served_as!r}")
        self._most_tokens = min(info.context_length, int(said.get("max_total_tokens") or info.context_length))
        self._most_prompt = int(said.get("max_input_tokens") or said.get("max_input_length") or self._most_tokens)
        self._most_stops = int(said.get("max_stop_sequences") or 4)
        await self._check_tokens(tokenizer)
        for digest, adapter_id in self._tgi.adapters.items():
            await self._verify(digest, adapter_id, info)
        if self._tgi.merged:
            await self._verify(self._tgi.merged, None, info)
        limit = {LIMIT: "TGI's max_total_tokens"} if self._most_tokens < info.context_length else {}
        version = {"tgi": str(said.get("version", ""))}
        reader = ReasoningReader(tokenizer)
        facts = limit | reader.facts | FIXED_ADAPTERS | NO_DIVERGENCE | version
        update = {"context_length": self._most_tokens, "build": info.build | facts}
        self._held = tokenizer, info.model_copy(update=update), reader

    async def ended(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()
        self._held = None
        await self._client.close()
        self._rendering.shutdown(wait=False, cancel_futures=True)

    @property
    def info(self) -> ModelInfo:
        return self._loaded[1]

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        """`on_text` gets all of the text in one piece."""
        began, (tokenizer, _, reader) = time.perf_counter(), self._loaded
        adapter_id = self._adapter_id([ref for ref in (policy.adapter if policy else None, adapter) if ref])
        loop = asyncio.get_running_loop()
        render = partial(plain_text, tokenizer, prompt, answering=bool(sampling.json_schema))
        text, tokens = await loop.run_in_executor(self._rendering, render)
        count = len(tokens)
        room = self._most_tokens - count
        if room < 1 or count > self._most_prompt:
            raise PromptTooLong(
                f"the prompt has {count} tokens; TGI takes {self._most_prompt}, and {self._most_tokens} with the "
                "completion; shorten the prompt",
                metadata={"prompt_tokens": str(count), "context_length": str(self._most_tokens)},
            )
        if len(sampling.stop) > self._most_stops:
            raise InvalidInput(f"TGI takes {self._most_stops} stop strings, not {len(sampling.stop)}")
        with self._time.request() as seconds:
            reply = await self._client.generate(text, **parameters(sampling, room), adapter_id=adapter_id)
        read = partial(read_output, reply, sampling.stop, reader)
        raw, finish, sampled = await loop.run_in_executor(self._rendering, read)
        said = await loop.run_in_executor(self._rendering, reader.split, raw, tokens)
        if on_text is not None:
            on_text(said)
        usage = Usage(
            prompt_tokens=count,
            completion_tokens=sampled,
            device_seconds=seconds[0],
            wall_seconds=time.perf_counter() - began,
        )
        return Generation(text=said.text, reasoning=said.reasoning, finish_reason=finish, usage=usage)

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:  # noqa: ARG002
        return policy

    async def divergence(
        self,
        texts: Sequence[Prompt | str],  # noqa: ARG002 - the protocol's shape
        *,
        policy: Policy | None = None,  # noqa: ARG002
        adapter: AdapterRef | None = None,  # noqa: ARG002
    ) -> list[float] | None:
        """None: TGI returns a few probabilities per token, not all."""
        return None

    def _adapter_id(self, refs: Sequence[AdapterRef]) -> str | None:
        """TGI's id of these adapters; None if they are merged into the served model."""
        digests = [ref.digest for ref in refs]
        if digests == ([self._tgi.merged] if self._tgi.merged else []):
            return None
        if len(digests) == 1 and not self._tgi.merged and digests[0] in self._tgi.adapters:
            return self._tgi.adapters[digests[0]]
        wanted = " with ".join(digests) or "the bare base model"
        raise Unsupported(
            f"this TGI was not started with {wanted}, and it loads nothing at run time; decode with vLLM (backend "
            "vllm) or in process (backend transformers)"
        )

    async def _check_tokens(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Checks that the server tokenizes like the local tokenizer, if it returns its tokens."""
        reply = await self._client.generate(AGREEMENT, details=True, decoder_input_details=True, max_new_tokens=1)
        theirs = [token.id for token in reply.details.prefill] if reply.details else []
        if not theirs:
            log.warning("TGI does not return its tokens; start it with --enable-prefill-logprobs to check them")
        elif theirs != list(tokenizer(AGREEMENT).input_ids):
            raise InvalidModel(
                f"{self._client.url} tokenizes differently from {self._model.model}; serve the trainer's model, "
                "with its tokenizer"
            )

    async def _verify(self, digest: str, adapter_id: str | None, info: ModelInfo) -> None:
        """Compares the server's probe under this name with the trainer's. Raises AdapterMismatch."""
        origin = Provenance.of(digest, await asyncio.to_thread(self._store.manifest, digest))
        origin.check_base(digest, info.digest)
        if not origin.probe_top or origin.policy_digest:
            raise AdapterMismatch(
                f"adapter {digest} has no probe, so TGI's copy cannot be verified; serve one that this trainer "
                "made and joined with the adapter under it",
                metadata={"digest": digest},
            )
        said = await self._client.generate(
            PROBE_TEXT, details=True, max_new_tokens=1, top_n_tokens=_TOP, adapter_id=adapter_id
        )
        top: Any = said.details.top_tokens if said.details else None  # the client does not parse this level of nesting
        if not top:
            raise Unavailable(f"{self._client.url} returns no likely tokens; start it with --max-top-n-tokens {_TOP}")
        gap = probe_gap(origin.probe_top, {token["id"]: token["logprob"] for token in top[0]})
        if not gap <= self._tgi.tolerance:
            under = f"under the adapter id {adapter_id!r}" if adapter_id else "as the merged model"
            raise AdapterMismatch(
                f"{self._client.url} does not answer as adapter {digest} {under}: the probe differs by {gap:.2f} "
                "nats. Start TGI with it: --lora-adapters ID=FOLDER, or the merged model",
                metadata={"digest": digest, "gap": f"{gap:.4f}"},
            )

    @property
    def _loaded(self) -> tuple[PreTrainedTokenizerBase, ModelInfo, ReasoningReader]:
        if self._held is None:
            raise Unavailable("the backend is not started, or is closed")
        return self._held


def plain_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, answering: bool = False) -> tuple[str, list[int]]:
    """The prompt as a text that TGI, which adds special tokens in front, turns into the trainer's tokens, and these.
    `answering`: as in `rendered_text`. Raises Unsupported if there is no such text."""
    text, _ = rendered_text(tokenizer, prompt, answering=answering)
    wanted = render_prompt(tokenizer, prompt, answering=answering)
    begin = str(tokenizer.bos_token or "")
    for one in (text, text.removeprefix(begin) if begin else text):
        if list(tokenizer(one).input_ids) == wanted:
            return one, wanted
    raise Unsupported("TGI takes text, and no text gives this prompt's tokens there; decode with vLLM or in process")


def parameters(sampling: Sampling, room: int) -> dict[str, Any]:
    """Parameters of `POST /generate`. TGI takes only a temperature above 0 and a top_p below 1."""
    drawn = sampling.temperature > 0
    return {
        "details": True,
        "max_new_tokens": min(sampling.max_tokens, room),
        "do_sample": drawn,
        "temperature": sampling.temperature if drawn else None,
        "top_p": sampling.top_p if drawn and sampling.top_p < 1 else None,
        "seed": sampling.seed if drawn else None,
        "stop": list(sampling.stop) or None,
        "return_full_text": False,
        "grammar": {"type": "json", "value": read_schema(sampling.json_schema)} if sampling.json_schema else None,
    }


def read_output(
    reply: TextGenerationOutput, stops: Sequence[str], reader: ReasoningReader
) -> tuple[str, FinishReason, int]:
    """Text without the stop string that TGI leaves at its end, finish reason, tokens sampled. Markers of reasoning that
    are special tokens, which TGI leaves out, are in the text again."""
    text, details = reply.generated_text, reply.details
    if details is not None and not reader.hidden.isdisjoint(sampled := [token.id for token in details.tokens or ()]):
        text = reader.text(sampled)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    text = text[: min(places)] if places else text
    cut = details is not None and details.finish_reason == "length"
    return text, FinishReason.LENGTH if cut else FinishReason.STOP, details.generated_tokens if details else 0
