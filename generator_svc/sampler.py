"""Samples the groups of a request. The seed of a completion derives from its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import starmap

from sealkit.backends.base import Generation, count_tokens
from sealkit.errors import InvalidInput
from sealkit.types import Completion, Prompt, Sampling, seed_of

Write = Callable[[Prompt, Sampling], Awaitable[Generation]]
"""Who writes: the backend under a policy, or an outside editor."""


async def sample(
    write: Write, contexts: Sequence[tuple[str, Prompt, Sequence[int]]], sampling: Sampling
) -> AsyncIterator[Completion]:
    """Yields completions as they finish, in no fixed order; `contexts` are (context id, prompt, indices to sample).

    A completion depends on who writes, the prompt, the sampling, its context id and its index, and on nothing else.
    Raises InvalidInput if a context is listed twice, and what `write` raises; the first failure cancels the rest.
    """
    names = [context_id for context_id, _, _ in contexts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"context {twice[0]} is listed twice; ask for all of its indices at once")

    async def one(context_id: str, prompt: Prompt, index: int) -> Completion:
        own = sampling.model_copy(update={"seed": seed_of(sampling.seed, context_id, index)})
        got = await write(prompt, own)
        count_tokens(got.usage)
        return Completion(
            context_id=context_id,
            index=index,
            text=got.text,
            reasoning=got.reasoning,
            finish_reason=got.finish_reason,
            usage=got.usage,
        )

    asked = [(context_id, prompt, index) for context_id, prompt, indices in contexts for index in indices]
    tasks = [asyncio.ensure_future(work) for work in starmap(one, asked)]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
