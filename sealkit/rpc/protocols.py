"""Interfaces of the three model services as the controller uses them, without generated code; tests use fakes.

Every method raises `sealkit.errors` classes; `Unavailable` if the service does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from sealkit.resources import ServiceReplica
from sealkit.routing import Route
from sealkit.types import (
    AdapterRef,
    AnswerDelta,
    AnswerEnd,
    Completion,
    Evaluation,
    EvaluationRequest,
    LoraConfig,
    ModelInfo,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Sampling,
    TrainingResult,
    TrainingSpec,
    Value,
)


class TrainerInfo(Value):
    """A trainer's model and limits; `target_modules` are the valid names for a LoraConfig."""

    model: ModelInfo
    target_modules: tuple[str, ...]
    engine_version: str
    max_concurrent_jobs: int


class Replicated(Protocol):
    """A model service with its replicas."""

    async def info(self) -> ModelInfo:
        """The base model of all replicas. Raises ModelMismatch if they differ."""
        ...

    async def look(self) -> None:
        """Asks every replica how busy it is. Raises InvalidConfig, PermissionDenied."""
        ...

    def replicas(self) -> Sequence[ServiceReplica]:
        """The replicas as they last were, by address."""
        ...

    async def close(self) -> None: ...


class Generator(Replicated, Protocol):
    """Samples self-edits."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[tuple[str, Prompt, Sequence[int]]],
        sampling: Sampling,
        *,
        editor: str = "",
    ) -> AsyncIterator[Completion]:
        """Yields completions as they finish, in no fixed order; `prompts` are (context id, prompt, indices to sample).
        An `editor` is an outside model that writes instead of the policy."""
        ...


class Trainer(Replicated, Protocol):
    """Trains adapters. Both streams yield any number of Progress values, then one TrainingResult at the end."""

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        """A trial's adapter, over the policy's frozen one. Closing the iterator stops the job. `retrain`: train even if
        the store has it; the stored one is kept, and the result has the weights' SHA-256."""
        ...

    def train_policy(
        self,
        parent: Policy,
        examples: Sequence[PolicyExample],
        lora: LoraConfig,
        optimisation: Optimisation,
        *,
        from_parent: bool,
        seed: int,
        owner: str,
    ) -> AsyncIterator[Progress | TrainingResult]:
        """The M-step. Closing the iterator stops the job."""
        ...

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        """One adapter that equals the sum of the policy's and the trial's."""
        ...

    async def route_adapters(self, routes: Sequence[Route]) -> AdapterRef:
        """One adapter that answers each prompt with that of the passage that the prompt is about."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without special tokens."""
        ...

    async def delete_adapters(self, adapters: Sequence[AdapterRef]) -> int:
        """Deletes adapters from the store, for good; returns the number of those that it had."""
        ...

    async def trainer_info(self) -> TrainerInfo: ...


class Evaluator(Replicated, Protocol):
    """Scores a policy, or an adapter on it."""

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Verdicts and the baseline's, in the order of the queries, and the other measurements of the request."""
        ...

    def answer(
        self, policy: Policy, prompt: Prompt, sampling: Sampling, *, base_model: str = ""
    ) -> AsyncGenerator[AnswerDelta | AnswerEnd, None]:
        """Pieces of the policy's answer as they are sampled, then its end. Closing the iterator ends the decoding.
        `base_model`: the digest that the evaluator's model must have, if not empty."""
        ...
