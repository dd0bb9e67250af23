"""How often a greedy text differs when decoded in a batch instead of alone. Measured where it is not excluded by
design."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sealkit.types import Prompt, PromptFormat, Sampling

GREEDY = Sampling(temperature=0, max_tokens=24)
# Of different lengths and subjects: a text changes at a near tie of two tokens, and those can occur anywhere.
PROMPTS = tuple(
    Prompt(user=text, format=PromptFormat.PLAIN)
    for text in (
        "The capital of the province is",
        "In 1847 the engineer Ana Tressik built",
        "To make bread one needs",
        "A list of animals that live in the sea:",
        "She opened the letter and",
        "The difference between a comet and an asteroid is",
        "Question: why is the sky blue?\nAnswer:",
        "Seven times eight is",
        "The council met on Monday to discuss the bridge. After two hours of debate it",
        "def area(width, height):",
        "Dear Sir or Madam,",
        "The three largest rivers of the continent are",
        "When water is heated, its molecules",
        "Once upon a time, in a village by the lighthouse,",
        "The museum is open every day but",
        "Translate into French: the house is small.\n",
    )
)


async def measure_batch_variance(answer: Callable[[Prompt], Awaitable[str]]) -> float:
    """Share in [0, 1] of the fixed prompts whose text from `answer` differs when all are sampled at once."""
    alone = [await answer(prompt) for prompt in PROMPTS]
    together = await asyncio.gather(*(answer(prompt) for prompt in PROMPTS))
    return sum(one != other for one, other in zip(alone, together, strict=True)) / len(PROMPTS)
