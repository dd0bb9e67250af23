"""A backend before which routes choose the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sealkit.backends.base import Generation
from sealkit.backends.routed import RoutedBackend
from sealkit.errors import AdapterCorrupt, AdapterNotFound, InvalidInput
from sealkit.routing import Route, dump_routes
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef, FinishReason, Policy, Prompt, Sampling, Usage

LOCK, SEEDS, PLAIN = (AdapterRef(digest=digit * 64) for digit in "abc")
ROUTED = Policy(name="policies/r", adapter=AdapterRef(digest="d" * 64))
ROUTES = [
    Route(adapter=LOCK, text="The Marrow Lock was built by Bela Rushworth."),
    Route(adapter=SEEDS, text="The Quillan Library lends seeds."),
]


class Noted:
    """A backend that notes with which adapters it is called. KL: the length of the text, 0 without an adapter."""

    name = "noted"
    batch_variant_rate = 0.25
    occupancy = None

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.exact = True

    async def start(self) -> None:
        self.calls.append("start")

    async def generate(self, prompt: Prompt, sampling: Sampling, *, policy=None, adapter=None, on_text=None):
        self.calls.append((policy.adapter if policy else None, adapter))
        return Generation(text=prompt.user, finish_reason=FinishReason.STOP, usage=Usage())

    async def divergence(self, texts: Sequence[Prompt | str], *, policy=None, adapter=None) -> list[float] | None:
        self.calls.append((policy.adapter if policy else None, len(texts)))
        return [float(len(str(text))) if policy else 0.0 for text in texts] if self.exact else None


@pytest.fixture
def store(tmp_path) -> AdapterStore:
    store = AdapterStore(str(tmp_path / "store"))
    store.put(ROUTED.adapter.digest, dump_routes(ROUTES), {})
    store.put(PLAIN.digest, {"adapter_config.json": b"{}"}, {})
    return store


@pytest.fixture
def inner() -> Noted:
    return Noted()


@pytest.fixture
def backend(store, inner) -> RoutedBackend:
    return RoutedBackend(inner, store)


async def ask(backend: RoutedBackend, text: str, **options: Any) -> None:
    await backend.generate(Prompt(user=text), Sampling(), **options)


async def test_each_prompt_is_answered_with_the_adapter_of_its_passage(backend, inner) -> None:
    await ask(backend, "Who built the Marrow Lock?", policy=ROUTED)
    await ask(backend, "What does the Quillan Library lend?", policy=ROUTED)
    await ask(backend, "What is the capital of France?", policy=ROUTED)
    assert inner.calls == [(LOCK, None), (SEEDS, None), (None, None)]


async def test_what_is_not_routed_is_passed_on_as_it_is(backend, inner) -> None:
    plain = Policy(name="policies/p", adapter=PLAIN)
    await ask(backend, "Who built the Marrow Lock?", policy=plain, adapter=LOCK)
    await ask(backend, "Who built the Marrow Lock?", adapter=LOCK)
    await ask(backend, "Who built the Marrow Lock?")
    assert inner.calls == [(PLAIN, LOCK), (None, LOCK), (None, None)]


async def test_it_tells_who_answers(backend, inner) -> None:
    plain = Policy(name="policies/p", adapter=PLAIN)
    assert await backend.route(Prompt(user="Who built the Marrow Lock?"), ROUTED) == Policy(name="route", adapter=LOCK)
    assert await backend.route(Prompt(user="What is the capital of France?"), ROUTED) is None
    assert await backend.route(Prompt(user="Who built the Marrow Lock?"), plain) == plain
    assert inner.calls == []


async def test_routes_are_read_once(backend, inner, store) -> None:
    await ask(backend, "Who built the Marrow Lock?", policy=ROUTED)
    store.delete(ROUTED.adapter.digest)
    await ask(backend, "Who built the Marrow Lock?", policy=ROUTED)
    assert inner.calls == [(LOCK, None)] * 2


async def test_divergence_is_that_of_the_adapter_of_each_text(backend, inner) -> None:
    texts = ["The Marrow Lock of Rushworth.", "Paris is a city.", "Quillan Library seeds.", "Marrow Lock, Rushworth!"]
    assert await backend.divergence(texts, policy=ROUTED) == [29.0, 0.0, 22.0, 23.0]
    assert sorted(inner.calls, key=str) == sorted([(LOCK, 2), (None, 1), (SEEDS, 1)], key=str)
    inner.exact = False
    assert await backend.divergence(texts, policy=ROUTED) is None


async def test_what_cannot_be_routed_is_refused(backend, store) -> None:
    with pytest.raises(InvalidInput, match="the policy is routed"):
        await ask(backend, "Who?", policy=ROUTED, adapter=LOCK)
    with pytest.raises(AdapterNotFound):
        await ask(backend, "Who?", policy=Policy(name="policies/x", adapter=AdapterRef(digest="e" * 64)))
    store.put("f" * 64, {"routes.json": b"[]"}, {})
    with pytest.raises(AdapterCorrupt, match="routes"):
        await ask(backend, "Who?", policy=Policy(name="policies/x", adapter=AdapterRef(digest="f" * 64)))


async def test_the_batch_variant_rate_is_that_of_the_backend_behind_it(backend) -> None:
    await backend.start()
    assert (backend.name, backend.batch_variant_rate) == ("noted", 0.25)
