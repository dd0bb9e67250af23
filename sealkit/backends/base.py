"""What a backend is: "sample text, with this adapter". One row a call; batching is the backend's own business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sealkit.types import AdapterRef, FinishReason, ModelInfo, Policy, Prompt, Sampling, Usage, Value


class Generation(Value):
    """One sampled text. `usage.device_seconds` is this row's share of the batch's time."""

    text: str
    finish_reason: FinishReason
    usage: Usage


class Backend(Protocol):
    """Samples text from one base model under any policy and adapter, named in every call, never ambient."""

    name: str
    batch_variant_rate: float
    """Share of texts that come out another in company than alone, in [0, 1]; valid after `start`. 0 where a text does
    not depend on its company, or where nothing is known of it."""

    async def start(self) -> None:
        """Loads the model. Raises InvalidModel."""
        ...

    async def close(self) -> None:
        """Finishes what runs, refuses what waits, frees the model."""
        ...

    @property
    def info(self) -> ModelInfo:
        """The base model held; valid after `start`."""
        ...

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, policy: Policy | None = None, adapter: AdapterRef | None = None
    ) -> Generation:
        """One completion. `policy` None means the bare base model; `adapter` goes on top of the policy.

        The same call gives the same text whatever runs beside it. Cancelling the task frees its row.
        Raises AdapterNotFound, AdapterCorrupt, PromptTooLong, QueueFull (with `retry_after`).
        """
        ...

    async def divergence(
        self,
        texts: Sequence[Prompt | str],
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
    ) -> list[float] | None:
        """KL(base || subject) of each text, in nats a token: the mean over all positions of a text of the divergence
        between what the bare base model and the subject (the policy with `adapter` on top) expect next. A prompt is
        read as it is rendered, a plain text with the special tokens that the tokenizer puts before it. None where the
        backend cannot tell. Raises InvalidInput on a text without tokens, and as `generate`.
        """
        ...
