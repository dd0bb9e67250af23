"""The backend on an OpenAI-compatible server: vLLM, SGLang, llama.cpp's server, `transformers serve`, hosted ones.

Prompts are rendered here, exactly as the trainer renders them, and sent as token ids; so the server's tokenizer and
chat template cannot change what the model reads. The server does the batching. Schema:
https://platform.openai.com/docs/api-reference/completions, and vLLM's additions to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

from pydantic import BaseModel, Field

from sealkit.backends.base import Generation, OnText, pass_on
from sealkit.backends.models import Described, describe_model
from sealkit.backends.positions import LIMIT
from sealkit.backends.reasoning import ReasoningReader
from sealkit.backends.remote import SEEDS, AdapterHost, Served, SharedTime, options
from sealkit.backends.template import DEFAULT_DATE, render_prompt
from sealkit.endpoint import Endpoint, EndpointOptions, token_count
from sealkit.errors import (
    EndpointRefused,
    InvalidModel,
    PromptTooLong,
    QueueFull,
    ResourceExhausted,
    Unavailable,
)
from sealkit.reasoning import Said
from sealkit.types import AdapterRef, FinishReason, ModelInfo, Policy, Prompt, Sampling, Usage

AGREEMENT = "Tokens agree where “quotes”, 1,234.5 and naïve words agree.\n"
"""A text that different tokenizers split differently."""
FIXED_ADAPTERS = {"adapters": "fixed"}
"""A build fact of a model: its server has only the adapters that it was started with."""
NO_DIVERGENCE = {"divergence": "none"}
"""A build fact of a model: its server gives no KL."""
_NOT_FOUND = "404"


class ServedModel(BaseModel):
    """The model, here and on the server. `model` is a local copy of the trainer's model: its tokenizer renders the
    prompts, its digest identifies the model."""

    model: str
    served_as: str = Field(min_length=1, description="Name under which the server serves it.")
    template_date: date = DEFAULT_DATE

    def describe(self) -> Described:
        """The local copy without its weights. Raises InvalidModel."""
        return describe_model(self.model, template_date=self.template_date)


class OpenAIBackend:
    """Implements `sealkit.backends.base.Backend`."""

    batch_variant_rate = 0.0
    occupancy = None

    def __init__(
        self, model: ServedModel, options: EndpointOptions, adapters: AdapterHost, *, name: str = "openai"
    ) -> None:
        """Raises InvalidConfig on an invalid endpoint."""
        self.name = name
        self._model = model
        self._endpoint = Endpoint(options)
        self._adapters = adapters
        self._served: Served | None = None
        self._context_length = 0
        self._closed = asyncio.Event()
        self._reader: ReasoningReader | None = None
        self._shown_markers: dict[str, bool] = {}
        """Makes the server leave markers of reasoning in the text that are special tokens."""
        self._time = SharedTime()
        # One thread, because tokenizers are not thread-safe.
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def start(self) -> None:
        """Loads the tokenizer, and checks that the server serves the model and tokenizes alike.

        Raises InvalidModel if it does not, and what an Endpoint raises.
        """
        tokenizer, info, end_ids = await asyncio.to_thread(self._model.describe)
        served = Served(self._endpoint, self._model.served_as, tokenizer, info, end_ids)
        self._context_length = min(info.context_length, await self._longest(served.name, info.context_length))
        await self._check_tokens(served)
        await self._adapters.start(served)
        self._reader = ReasoningReader(tokenizer)
        self._shown_markers = {"skip_special_tokens": False} if self._reader.hidden else {}
        limit = {LIMIT: "the server's max_model_len"} if self._context_length < info.context_length else {}
        facts = limit | self._reader.facts | NO_DIVERGENCE | (FIXED_ADAPTERS if self._adapters.fixed else {})
        build = info.build | facts
        info = info.model_copy(update={"context_length": self._context_length, "build": build})
        self._served = replace(served, info=info)

    async def ended(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()
        if self._served is not None:
            await self._adapters.close()
        self._served = None
        await self._endpoint.close()
        self._rendering.shutdown(wait=False, cancel_futures=True)

    @property
    def info(self) -> ModelInfo:
        return self._held.info

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        began, held = time.perf_counter(), self._held
        loop = asyncio.get_running_loop()
        render = partial(render_prompt, held.tokenizer, prompt, answering=bool(sampling.json_schema))
        tokens = await loop.run_in_executor(self._rendering, render)
        room = self._context_length - len(tokens)
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens, but the server's context has {self._context_length} "
                f"({held.info.build[LIMIT]}), with at least one for the completion; shorten the prompt",
                metadata={"prompt_tokens": str(len(tokens)), "context_length": str(self._context_length)},
            )
        refs = [ref for ref in (policy.adapter if policy else None, adapter) if ref is not None]
        async with self._adapters.hold(refs) as name:
            with self._time.request() as seconds:
                asked = completion_request(name, tokens, sampling, room)
                asked |= {**self._adapters.extra, **self._shown_markers}
                if on_text is None:
                    reply = await self._complete(name, asked)
                    text, finish, sampled = read_completion(reply, self._endpoint.url)
                    said = await loop.run_in_executor(self._rendering, self._split, text, tokens)
                else:
                    said, finish, sampled = await self._stream(name, asked, tokens, sampling.stop, on_text)
        return Generation(
            text=said.text,
            reasoning=said.reasoning,
            finish_reason=finish,
            usage=Usage(
                prompt_tokens=len(tokens),
                completion_tokens=sampled,
                device_seconds=seconds[0],
                wall_seconds=time.perf_counter() - began,
            ),
        )

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:  # noqa: ARG002
        return policy

    async def divergence(
        self,
        texts: Sequence[Prompt | str],  # noqa: ARG002 - the protocol's shape
        *,
        policy: Policy | None = None,  # noqa: ARG002
        adapter: AdapterRef | None = None,  # noqa: ARG002
    ) -> list[float] | None:
        """None: the API returns a few probabilities per token, not all."""
        return None

    def _split(self, text: str, prompt: Sequence[int]) -> Said:
        """Runs in the rendering thread."""
        assert self._reader is not None
        said = self._reader.split(text, prompt)
        return self._reader.without_special(said) if self._reader.hidden else said

    async def _stream(
        self, name: str, body: Mapping[str, Any], prompt: Sequence[int], stop: Sequence[str], on_text: OnText
    ) -> tuple[Said, FinishReason, int]:
        """A completion whose text is given to `on_text` as it comes; all of it, finish reason, tokens sampled."""
        assert self._reader is not None
        said = self._reader.stream(prompt, stop, special=bool(self._reader.hidden))
        text, finish, sampled = "", None, 0
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._refusals(name):
            async with aclosing(self._endpoint.events("/completions", streamed)) as events:
                async for event in events:
                    if event.get("choices"):
                        more, ended, _ = read_completion(event, self._endpoint.url)
                        text += more
                        finish = ended if event["choices"][0].get("finish_reason") else finish
                        pass_on(said.update(text), on_text)
                    if event.get("usage"):
                        sampled = token_count(event["usage"].get("completion_tokens"))
        if finish is None:
            raise Unavailable(f"{self._endpoint.url} ended a completion in the middle; is the server running?")
        pass_on(said.finish(text), on_text)
        return said.given, finish, sampled

    async def _complete(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._refusals(name):
            return await self._endpoint.json("POST", "/completions", body, repeatable=True)

    @contextmanager
    def _refusals(self, name: str) -> Iterator[None]:
        """A model that the server no longer knows, and a full server, in the words of a backend."""
        try:
            yield
        except EndpointRefused as error:
            if error.metadata.get("status") != _NOT_FOUND:
                raise
            self._adapters.lost(name)
            raise Unavailable(f"{self._endpoint.url} has lost {name!r}; was the server restarted?") from error
        except ResourceExhausted as error:
            raise QueueFull(error.message, retry_after=error.retry_after) from error

    async def _longest(self, name: str, default: int) -> int:
        """The server's context length in tokens. Raises InvalidModel if it does not serve the model."""
        models = (await self._endpoint.json("GET", "/models", repeatable=True)).get("data") or []
        for model in models:
            if model.get("id") == name:
                return int(model.get("max_model_len") or default)
        known = ", ".join(str(model.get("id")) for model in models) or "none"
        raise InvalidModel(f"{self._endpoint.url} does not serve {name!r}; it serves {known}")

    async def _check_tokens(self, served: Served) -> None:
        """Checks that the server tokenizes like the local tokenizer: token for token if it returns them, else by
        count."""
        ours = list(served.tokenizer(AGREEMENT).input_ids)
        body = {"model": served.name, "prompt": AGREEMENT, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
        reply = await self._endpoint.json("POST", "/completions", body, repeatable=True)
        theirs = (reply.get("choices") or [{}])[0].get("prompt_token_ids")
        count = (reply.get("usage") or {}).get("prompt_tokens")
        if (theirs is not None and list(theirs) != ours) or (theirs is None and count not in (None, len(ours))):
            raise InvalidModel(
                f"{self._endpoint.url} tokenizes differently from {self._model.model}; serve the trainer's model, "
                "with its tokenizer"
            )

    @property
    def _held(self) -> Served:
        if self._served is None:
            raise Unavailable("the backend is not started, or is closed")
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
    """Text, finish reason, tokens sampled. Raises Unavailable if the reply is not a completion."""
    try:
        choice = reply["choices"][0]
        text, ended = str(choice["text"]), choice.get("finish_reason")
        sampled = token_count((reply.get("usage") or {}).get("completion_tokens"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"{url} did not answer with a completion: {str(reply)[:200]}") from error
    return text, FinishReason.LENGTH if ended == "length" else FinishReason.STOP, sampled
