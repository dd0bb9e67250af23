"""What a backend is: "sample text, with this adapter". One row a call; batching is the backend's own business."""

from __future__ import annotations

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
