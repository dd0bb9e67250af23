"""The generator's groups: seeds from names, each completion as it is done."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from generator_svc.sampler import Write, sample
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import InvalidInput
from sealkit.types import Policy, Prompt, Sampling

POLICY = Policy(name="policies/base")
SAMPLING = Sampling(temperature=1, max_tokens=12, seed=3)
RIVER, TOWN = Prompt(user="the river"), Prompt(user="the town")


def by(backend: TransformersBackend) -> Write:
    """The backend under the policy."""
    return partial(backend.generate, policy=POLICY)


async def collect(backend: TransformersBackend, *contexts: tuple[str, Prompt, list[int]]) -> dict[tuple[str, int], str]:
    return {(c.context_id, c.index): c.text async for c in sample(by(backend), contexts, SAMPLING)}


async def test_a_completion_depends_on_its_name_and_never_on_its_place(backend: TransformersBackend) -> None:
    whole = await collect(backend, ("c1", RIVER, [0, 1, 2]), ("c2", TOWN, [0, 1, 2]))
    parts = await collect(backend, ("c2", TOWN, [2, 0])) | await collect(backend, ("c1", RIVER, [1]))
    assert parts == {name: whole[name] for name in parts}
    assert len(set(whole.values())) == 6


async def test_each_is_given_as_it_is_done_and_leaving_frees_the_rest(backend: TransformersBackend) -> None:
    stream = sample(by(backend), [("c1", RIVER, list(range(300)))], SAMPLING.model_copy(update={"max_tokens": 80}))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert len(await asyncio.wait_for(collect(backend, ("c2", TOWN, [0])), 5)) == 1


async def test_a_context_that_comes_twice_is_refused(backend: TransformersBackend) -> None:
    with pytest.raises(InvalidInput, match="c1"):
        await collect(backend, ("c1", RIVER, [0]), ("c1", RIVER, [1]))
