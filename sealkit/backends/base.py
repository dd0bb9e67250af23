"""The backend interface: "sample text with this adapter". One row per call; the backend does the batching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sealkit.observability.metrics import DECODE_TOKENS
from sealkit.reasoning import Said
from sealkit.types import AdapterRef, FinishReason, ModelInfo, Occupancy, Policy, Prompt, Sampling, Usage, Value

OnText = Callable[[Said], None]
"""Takes the next piece of a completion, in the order in which they are sampled."""


def pass_on(new: Said, on_text: OnText) -> None:
    """Gives a piece to `on_text` unless it is empty."""
    if any(new):
        on_text(new)


def count_tokens(usage: Usage) -> None:
    """Adds the tokens of a completion to the metric."""
    DECODE_TOKENS.labels("prompt").inc(usage.prompt_tokens)
    DECODE_TOKENS.labels("completion").inc(usage.completion_tokens)


class Generation(Value):
    """One sampled text, without the model's reasoning, which is apart: a text that ended inside it is empty.
    `usage.device_seconds` is this row's share of the batch's time."""

    text: str
    reasoning: str = ""
    finish_reason: FinishReason
    usage: Usage


class Backend(Protocol):
    """Samples text from one base model. Every call names its policy and adapter; there is no current one."""

    name: str
    batch_variant_rate: float
    """Share of texts that differ when decoded in a batch instead of alone, in [0, 1]; valid after `start`. 0 if texts
    do not depend on the batch, or if the rate is unknown."""

    async def start(self) -> None:
        """Loads the model. Raises InvalidModel."""
        ...

    async def ended(self) -> None:
        """Returns once the backend is closed; raises the error after which it can serve no more."""
        ...

    async def close(self) -> None:
        """Finishes running rows, rejects waiting ones, frees the model."""
        ...

    @property
    def info(self) -> ModelInfo:
        """The loaded base model; valid after `start`."""
        ...

    @property
    def occupancy(self) -> Occupancy | None:
        """Texts that are sampled now and that wait; None if another server samples them."""
        ...

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        """One completion. `policy` None means the bare base model; `adapter` goes on top of the policy. `on_text` gets
        the text and the reasoning piece by piece, all of both before the call returns.

        The same call gives the same text whatever else is decoded. Cancelling the task frees its row. Raises
        AdapterNotFound, AdapterCorrupt, PromptTooLong, QueueFull (with `retry_after`).
        """
        ...

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:
        """The policy that answers a prompt: the same one, unless it is routed (`sealkit.routing`). Raises
        AdapterNotFound, AdapterCorrupt."""
        ...

    async def divergence(
        self,
        texts: Sequence[Prompt | str],
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
    ) -> list[float] | None:
        """KL(base || subject) of each text, in nats a token: the mean over all positions of a text of the divergence
        between the next-token distributions of the bare base model and of the subject (the policy with `adapter` on
        top). A prompt is rendered first; a plain text gets the tokenizer's special tokens in front. None if the backend
        has no full distributions. Raises InvalidInput on a text without tokens, and what `generate` raises.
        """
        ...
