"""What backends share that ask a server: which adapters it serves, and what of its time a request had."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from sealkit.endpoint import Endpoint
from sealkit.errors import Unsupported
from sealkit.schema import read_schema
from sealkit.types import AdapterRef, ModelInfo, Sampling

SEEDS = 2**31
"""Servers take signed 32-bit seeds, or more."""


def options(sampling: Sampling) -> dict[str, Any]:
    """How to sample, as OpenAI's API has it; without length and seed, which not every server takes alike. Raises
    InvalidInput on a schema that is none."""
    body: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema:
        schema = {"name": "completion", "schema": read_schema(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a server: how to reach it, the name it is served under, and how its prompts are rendered."""

    endpoint: Endpoint
    name: str
    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo


class AdapterHost(Protocol):
    """Puts adapters on a server and takes them off again."""

    fixed: bool
    """Whether it can do no such thing."""

    async def start(self, served: Served) -> None:
        """Before the first `hold`. Raises what an Endpoint raises."""
        ...

    def hold(self, refs: Sequence[AdapterRef]) -> AbstractAsyncContextManager[str]:
        """The name to ask for while the block runs: the model with these adapters on it, the policy's first."""
        ...

    def lost(self, name: str) -> None:
        """The server does not know the name any more."""
        ...

    async def close(self) -> None:
        """Takes all off."""
        ...


class NoAdapters:
    """A server that serves the base model only."""

    fixed = True

    def __init__(self, why: str) -> None:
        """`why`: what a person can do about it."""
        self._why = why
        self._name = ""

    async def start(self, served: Served) -> None:
        self._name = served.name

    @asynccontextmanager
    async def hold(self, refs: Sequence[AdapterRef]) -> AsyncIterator[str]:
        if refs:
            raise Unsupported(f"this backend cannot put an adapter on its server: {self._why}")
        yield self._name

    def lost(self, name: str) -> None: ...

    async def close(self) -> None: ...


class SharedTime:
    """A server's time by who used it: at any moment shared equally among the requests under way. The shares add up to
    the time in which there were any."""

    def __init__(self) -> None:
        self._running = 0
        self._share = 0.0
        """Seconds that a request has been charged which was there all along."""
        self._since = 0.0

    @contextmanager
    def request(self) -> Iterator[list[float]]:
        """The list that is given holds the request's seconds once the block is left."""
        self._advance(+1)
        began, charged = self._share, [0.0]
        try:
            yield charged
        finally:
            self._advance(-1)
            charged[0] = self._share - began

    def _advance(self, change: int) -> None:
        now = time.perf_counter()
        if self._running:
            self._share += (now - self._since) / self._running
        self._since, self._running = now, self._running + change
