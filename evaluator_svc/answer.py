"""One answer, streamed as it is sampled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from sealkit.backends.base import Backend, count_tokens
from sealkit.errors import ModelMismatch
from sealkit.reasoning import Said
from sealkit.types import AnswerDelta, AnswerEnd, Policy, Prompt, Sampling


async def answer(
    backend: Backend, policy: Policy, prompt: Prompt, sampling: Sampling, *, base_model: str = ""
) -> AsyncGenerator[AnswerDelta | AnswerEnd, None]:
    """Yields the pieces of the policy's answer, then its end. Closing the generator ends the decoding.

    A slow reader gets several pieces as one. Raises ModelMismatch if `base_model` is the digest of another model, and
    what the backend raises.
    """
    held = backend.info
    if base_model not in ("", held.digest):
        raise ModelMismatch(
            f"{policy.name} was trained on base model {base_model}, but this evaluator has {held.name} ({held.digest})"
        )
    pieces: asyncio.Queue[Said | None] = asyncio.Queue()
    task = asyncio.create_task(backend.generate(prompt, sampling, policy=policy, on_text=pieces.put_nowait))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await pieces.get()) is not None:
            text, reasoning = piece
            while not pieces.empty() and (more := pieces.get_nowait()) is not None:
                text, reasoning = text + more.text, reasoning + more.reasoning
            yield AnswerDelta(text=text, reasoning=reasoning)
            if task.done() and pieces.empty():
                break
        usage = (got := await task).usage
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    count_tokens(usage)
    yield AnswerEnd(finish_reason=got.finish_reason, usage=usage)
