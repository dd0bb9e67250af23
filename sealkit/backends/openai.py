"""The backend on an OpenAI-compatible server: vLLM, SGLang, llama.cpp's server, `transformers serve`, hosted ones.

Prompts are rendered here, exactly as the trainer renders them, and sent as token ids; so the server's tokenizer and
chat template cannot make the model read something else than it was trained on. Batching is the server's business.
Schema: https://platform.openai.com/docs/api-reference/completions, and vLLM's additions to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from sealkit.backends.base import Generation
from sealkit.backends.models import describe_model, render_prompt
from sealkit.backends.remote import SEEDS, AdapterHost, Served, SharedTime, options
from sealkit.endpoint import Endpoint, EndpointOptions, token_count
from sealkit.errors import (
    EndpointRefused,
    InvalidModel,
    PromptTooLong,
    QueueFull,
    ResourceExhausted,
    Unavailable,
)
from sealkit.types import AdapterRef, FinishReason, ModelInfo, Policy, Prompt, Sampling, Usage

AGREEMENT = "Tokens agree where “quotes”, 1,234.5 and naïve words agree.\n"
"""A text that tokenizers part ways at."""
FIXED_ADAPTERS = {"adapters": "fixed"}
"""Of a model's build facts: it answers with the adapters that its server was started with, and takes no others."""
NO_DIVERGENCE = {"divergence": "none"}
"""Of a model's build facts: what answers for it tells no KL."""
_NOT_FOUND = "404"


class ServedModel(BaseModel):
    """Which model, here and there. `model` is the local copy that the trainer holds too: its tokenizer renders the
    prompts, its digest says which model is meant."""

    model: str
    served_as: str = Field(min_length=1, description="Name under which the server serves it.")
    dtype: str = Field("served", description="What the server computes in, for the record.")


class OpenAIBackend:
    """Implements `sealkit.backends.base.Backend`."""

    batch_variant_rate = 0.0

    def __init__(
        self, model: ServedModel, options: EndpointOptions, adapters: AdapterHost, *, name: str = "openai"
    ) -> None:
        """Raises InvalidConfig on an endpoint that is none."""
        self.name = name
        self._model = model
        self._endpoint = Endpoint(options)
        self._adapters = adapters
        self._served: Served | None = None
        self._context_length = 0
        self._time = SharedTime()
        # One thread, because tokenizers are not made for several.
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def start(self) -> None:
        """Reads the tokenizer, and checks that the server serves the model and reads the same tokens.

        Raises InvalidModel where it does not, and what an Endpoint raises.
        """
        tokenizer, info = await asyncio.to_thread(describe_model, self._model.model, dtype=self._model.dtype)
        served = Served(self._endpoint, self._model.served_as, tokenizer, info)
        self._context_length = min(info.context_length, await self._longest(served.name, info.context_length))
        await self._check_tokens(served)
        await self._adapters.start(served)
        build = info.build | NO_DIVERGENCE | (FIXED_ADAPTERS if self._adapters.fixed else {})
        info = info.model_copy(update={"context_length": self._context_length, "build": build})
        self._served = replace(served, info=info)

    async def close(self) -> None:
        if self._served is not None:
            await self._adapters.close()
        self._served = None
        await self._endpoint.close()
        self._rendering.shutdown(wait=False, cancel_futures=True)

    @property
    def info(self) -> ModelInfo:
        return self._held.info

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, policy: Policy | None = None, adapter: AdapterRef | None = None
    ) -> Generation:
        began, held = time.perf_counter(), self._held
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._rendering, render_prompt, held.tokenizer, prompt)
        room = self._context_length - len(tokens)
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens and the server reads {self._context_length}, with at least one "
                "of them to be sampled; shorten the prompt",
                metadata={"prompt_tokens": str(len(tokens)), "context_length": str(self._context_length)},
            )
        refs = [ref for ref in (policy.adapter if policy else None, adapter) if ref is not None]
        async with self._adapters.hold(refs) as name:
            with self._time.request() as seconds:
                reply = await self._complete(name, completion_request(name, tokens, sampling, room))
        text, finish, sampled = read_completion(reply, self._endpoint.url)
        return Generation(
            text=text,
            finish_reason=finish,
            usage=Usage(
                prompt_tokens=len(tokens),
                completion_tokens=sampled,
                device_seconds=seconds[0],
                wall_seconds=time.perf_counter() - began,
            ),
        )

    async def divergence(
        self,
        texts: Sequence[Prompt | str],  # noqa: ARG002 - the protocol's shape
        *,
        policy: Policy | None = None,  # noqa: ARG002
        adapter: AdapterRef | None = None,  # noqa: ARG002
    ) -> list[float] | None:
        """None: the API tells a few probabilities of each token, not all."""
        return None

    async def _complete(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._endpoint.json("POST", "/completions", body, repeatable=True)
        except EndpointRefused as error:
            if error.metadata.get("status") != _NOT_FOUND:
                raise
            self._adapters.lost(name)
            raise Unavailable(f"{self._endpoint.url} has lost {name!r}; was the server restarted?") from error
        except ResourceExhausted as error:
            raise QueueFull(error.message, retry_after=error.retry_after) from error

    async def _longest(self, name: str, default: int) -> int:
        """How many tokens the server reads. Raises InvalidModel where it does not serve the model."""
        models = (await self._endpoint.json("GET", "/models", repeatable=True)).get("data") or []
        for model in models:
            if model.get("id") == name:
                return int(model.get("max_model_len") or default)
        known = ", ".join(str(model.get("id")) for model in models) or "none"
        raise InvalidModel(f"{self._endpoint.url} does not serve {name!r}; it serves {known}")

    async def _check_tokens(self, served: Served) -> None:
        """The server must read a text as the tokenizer here does: token for token where it shows them, or by count."""
        ours = list(served.tokenizer(AGREEMENT).input_ids)
        body = {"model": served.name, "prompt": AGREEMENT, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
        reply = await self._endpoint.json("POST", "/completions", body, repeatable=True)
        theirs = (reply.get("choices") or [{}])[0].get("prompt_token_ids")
        count = (reply.get("usage") or {}).get("prompt_tokens")
        if (theirs is not None and list(theirs) != ours) or (theirs is None and count not in (None, len(ours))):
            raise InvalidModel(
                f"{self._endpoint.url} reads text in other tokens than {self._model.model} does; serve the model that "
                "the trainer holds, with its tokenizer"
            )

    @property
    def _held(self) -> Served:
        if self._served is None:
            raise Unavailable("the backend was not started, or it is closed")
        return self._served


def completion_request(name: str, tokens: Sequence[int], sampling: Sampling, room: int) -> dict[str, Any]:
    """The body of `POST /completions` for one prompt."""
    return {
        "model": name,
        "prompt": list(tokens),
        "max_tokens": min(sampling.max_tokens, room),
        "seed": sampling.seed % SEEDS,
        **options(sampling),
    }


def read_completion(reply: Mapping[str, Any], url: str) -> tuple[str, FinishReason, int]:
    """Text, why it ended, tokens sampled. Raises Unavailable on what is no completion."""
    try:
        choice = reply["choices"][0]
        text, ended = str(choice["text"]), choice.get("finish_reason")
        sampled = token_count((reply.get("usage") or {}).get("completion_tokens"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"{url} answered with what is no completion: {str(reply)[:200]}") from error
    return text, FinishReason.LENGTH if ended == "length" else FinishReason.STOP, sampled
