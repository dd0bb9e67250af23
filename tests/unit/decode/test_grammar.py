"""Completions that are held to a JSON schema: random weights write valid JSON, in any company."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.domains.arc.toolkit import SCHEMA, read_toolkit
from sealkit.errors import InvalidInput, Unsupported
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import FinishReason, Prompt, Sampling

PLAIN = json.dumps(
    {
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "n": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["on", "n"],
        "additionalProperties": False,
    }
)


def sampling(schema: str, seed: int = 0, max_tokens: int = 60, **changes: object) -> Sampling:
    return Sampling(json_schema=schema, seed=seed, max_tokens=max_tokens, temperature=1.0, **changes)


async def test_random_weights_write_what_the_schema_asks(backend: TransformersBackend) -> None:
    wanted = [backend.generate(Prompt(user="?"), sampling(PLAIN, seed)) for seed in range(6)]
    for got in await asyncio.gather(*wanted):
        value = json.loads(got.text)
        assert got.finish_reason is FinishReason.STOP
        assert isinstance(value["on"], bool)
        assert 1 <= value["n"] <= 99


async def test_a_held_row_leaves_the_others_alone_and_is_the_same_beside_them(backend: TransformersBackend) -> None:
    free = Sampling(temperature=1.0, seed=5, max_tokens=20)
    alone = await backend.generate(Prompt(user="?"), free)
    held = await backend.generate(Prompt(user="?"), sampling(PLAIN, 3))
    beside, again = await asyncio.gather(
        backend.generate(Prompt(user="?"), free), backend.generate(Prompt(user="?"), sampling(PLAIN, 3))
    )
    assert (beside.text, again.text) == (alone.text, held.text)


async def test_random_weights_choose_a_toolkit(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", context=512)
    roomy = TransformersBackend(ModelSettings(model=str(model), device="cpu"), AdapterStore(tmp_path.as_uri()))
    await roomy.start()
    got = await asyncio.gather(*(roomy.generate(Prompt(user="?"), sampling(SCHEMA, seed, 400)) for seed in range(4)))
    await roomy.close()
    assert len({read_toolkit(one.text).model_dump_json() for one in got}) > 1


async def test_a_text_that_is_cut_is_said_to_be(backend: TransformersBackend) -> None:
    got = await backend.generate(Prompt(user="?"), sampling(PLAIN, max_tokens=4))
    assert got.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("schema", ["no json", '{"type": "nonsense"}'])
async def test_a_schema_that_is_none_is_refused(backend: TransformersBackend, schema: str) -> None:
    with pytest.raises(InvalidInput, match="json_schema"):
        await backend.generate(Prompt(user="?"), sampling(schema))
    assert (await backend.generate(Prompt(user="?"), sampling(PLAIN))).text


async def test_without_llguidance_it_says_what_to_install(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Unsupported, match=r"seal-suite\[constrained\]"):
        await backend.generate(Prompt(user="?"), sampling('{"type": "null"}'))
