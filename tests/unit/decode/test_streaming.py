"""A text that is read along: its pieces are the text of the same call without a reader, and a reader goes first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sealkit.backends.models import ModelSettings
from sealkit.backends.reasoning import ReasoningReader, TextStream
from sealkit.backends.transformers import TransformersBackend
from sealkit.reasoning import Said
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_tokenizer
from sealkit.types import FinishReason, Prompt, PromptFormat, Sampling

PROMPT = Prompt(user="the town", format=PromptFormat.PLAIN)
LONG = Sampling(temperature=1, max_tokens=100, seed=5)


async def test_the_pieces_are_the_text(backend: TransformersBackend) -> None:
    whole = await backend.generate(PROMPT, LONG)
    stop = whole.text[10:14]
    stopped = LONG.model_copy(update={"stop": ("never in there", stop), "seed": 5})
    pieces: dict[str, list[Said]] = {"whole": [], "stopped": []}
    got, ended = await asyncio.gather(
        backend.generate(PROMPT, LONG, on_text=pieces["whole"].append),
        backend.generate(PROMPT, stopped, on_text=pieces["stopped"].append),
    )
    assert (got.text, got.finish_reason) == (whole.text, whole.finish_reason)
    assert got.usage.completion_tokens == whole.usage.completion_tokens
    assert "".join(piece.text for piece in pieces["whole"]) == whole.text
    assert len(pieces["whole"]) > 5, "it comes piece by piece"
    assert "".join(piece.text for piece in pieces["stopped"]) == ended.text == whole.text[: whole.text.index(stop)]
    assert ended.finish_reason is FinishReason.STOP


def test_a_growing_text_is_the_text_of_all_tokens() -> None:
    tokenizer = make_tiny_tokenizer()
    reader = ReasoningReader(tokenizer)
    text = "Où est l’Ossel? 河は長い 🛶 and <|im_end|> the Rhine"
    tokens = list(tokenizer(text).input_ids)
    stream, seen = TextStream(reader), ""
    for count in range(1, len(tokens) + 1):
        now = stream.update(tokens[:count])
        assert now.startswith(seen)
        assert "\N{REPLACEMENT CHARACTER}" not in now, "no half of a character"
        seen = now
    assert seen == reader.text(tokens)


async def test_a_reader_that_leaves_frees_its_row(backend: TransformersBackend) -> None:
    begun = asyncio.Event()
    endless = [asyncio.ensure_future(backend.generate(PROMPT, LONG, on_text=lambda _: begun.set())) for _ in range(50)]
    await asyncio.wait_for(begun.wait(), 10)
    assert 0 < backend.occupancy.running <= backend.occupancy.capacity
    for task in endless:
        task.cancel()
    done = await asyncio.gather(*endless, return_exceptions=True)
    assert any(isinstance(one, asyncio.CancelledError) for one in done)
    got = await asyncio.wait_for(backend.generate(PROMPT, Sampling(temperature=0, max_tokens=2)), 5)
    assert got.usage.completion_tokens == 2
    assert (backend.occupancy.running, backend.occupancy.waiting) == (0, 0)


async def test_who_reads_along_goes_first(model: Path, tmp_path: Path) -> None:
    backend = TransformersBackend(
        ModelSettings(model=str(model), device="cpu"), AdapterStore(tmp_path.as_uri()), max_rows=1
    )
    await backend.start()
    ended: list[str] = []

    async def ask(name: str, *, reads: bool) -> None:
        await backend.generate(
            PROMPT, LONG.model_copy(update={"max_tokens": 20}), on_text=(lambda _: None) if reads else None
        )
        ended.append(name)

    try:
        evaluations = [asyncio.ensure_future(ask(f"evaluation {i}", reads=False)) for i in range(8)]
        await asyncio.sleep(0)
        await ask("answer", reads=True)
        assert len(ended) <= 4, f"it waited for {ended}"
        await asyncio.gather(*evaluations)
    finally:
        await backend.close()


@pytest.mark.parametrize("on_text", [True, False])
async def test_a_fault_is_raised_to_who_reads(backend: TransformersBackend, on_text: bool) -> None:
    from sealkit.errors import AdapterNotFound
    from sealkit.types import AdapterRef, Policy

    policy = Policy(name="policies/lost", adapter=AdapterRef(digest="ab" * 32))
    with pytest.raises(AdapterNotFound):
        await backend.generate(PROMPT, LONG, policy=policy, on_text=(lambda _: None) if on_text else None)
