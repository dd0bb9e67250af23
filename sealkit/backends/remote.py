"""Shared parts of backends that use a server: the adapters on it, and the share of its time per request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from sealkit.endpoint import Endpoint
from sealkit.errors import Unsupported
from sealkit.schema import read_schema
from sealkit.types import AdapterRef, ModelInfo, Sampling

SEEDS = 2**31
"""Servers accept signed 32-bit seeds at least."""


def options(sampling: Sampling) -> dict[str, Any]:
    """Sampling parameters of OpenAI's API, without length and seed, which differ between servers. Raises InvalidInput
    on an invalid schema."""
    body: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema:
        schema = {"name": "completion", "schema": read_schema(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a server: its endpoint, its name there, its tokenizer, and the tokens that end a completion."""

    endpoint: Endpoint
    name: str
    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo
    end_ids: frozenset[int]


class AdapterHost(Protocol):
    """Loads adapters on a server and unloads them."""

    fixed: bool
    """True if the server cannot load adapters."""
    extra: Mapping[str, Any]
    """What every request to this kind of server has besides; valid after `start`."""

    async def start(self, served: Served) -> None:
        """Before the first `hold`. Raises what an Endpoint raises."""
        ...

    def hold(self, refs: Sequence[AdapterRef]) -> AbstractAsyncContextManager[str]:
        """The model name to use while the block runs: the model with these adapters, the policy's first."""
        ...

    def lost(self, name: str) -> None:
        """Called when the server no longer knows the name."""
        ...

    async def close(self) -> None:
        """Unloads all adapters."""
        ...


class NoAdapters:
    """A server that serves the base model only."""

    fixed = True
    extra: Mapping[str, Any] = {}

    def __init__(self, why: str) -> None:
        """`why`: how to fix it, for the error message."""
        self._why = why
        self._name = ""

    async def start(self, served: Served) -> None:
        self._name = served.name

    @asynccontextmanager
    async def hold(self, refs: Sequence[AdapterRef]) -> AsyncIterator[str]:
        if refs:
            raise Unsupported(f"this backend cannot load an adapter on its server: {self._why}")
        yield self._name

    def lost(self, name: str) -> None: ...

    async def close(self) -> None: ...


class SharedTime:
    """A server's time, split among requests: at any moment equally among the running ones. The shares add up to the
    time in which any request ran."""

    def __init__(self) -> None:
        self._running = 0
        self._share = 0.0
        """Seconds charged to a request that ran since the start."""
        self._since = 0.0

    @contextmanager
    def request(self) -> Iterator[list[float]]:
        """The yielded list holds the request's seconds once the block is left."""
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
