"""What the controller needs of the three model services, without generated code: tests put fakes in here.

Every method raises `sealkit.errors` classes; `Unavailable` where the service does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sealkit.types import (
    AdapterRef,
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
    """What a trainer holds and allows; `target_modules` are the names that a LoraConfig may take."""

    model: ModelInfo
    target_modules: tuple[str, ...]
    engine_version: str
    max_concurrent_jobs: int


class Generator(Protocol):
    """Samples self-edits."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[tuple[str, Prompt, Sequence[int]]],
        sampling: Sampling,
        *,
        editor: str = "",
    ) -> AsyncIterator[Completion]:
        """Completions as they are done, in no set order; `prompts` are (context id, prompt, indices to sample). An
        `editor` is an outside model that writes in the policy's place."""
        ...

    async def info(self) -> ModelInfo: ...

    async def close(self) -> None: ...


class Trainer(Protocol):
    """Trains adapters. Both streams give Progress any number of times, then one TrainingResult, which is the last."""

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        """A trial's adapter, over the policy's frozen one. Closing the iterator stops the job. `retrain`: also where
        the store has it; what it has stays, and the result tells the weights' SHA-256."""
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
        """One adapter that does exactly what the policy's and the trial's do together."""
        ...

    async def info(self) -> ModelInfo: ...

    async def trainer_info(self) -> TrainerInfo: ...

    async def close(self) -> None: ...


class Evaluator(Protocol):
    """Scores a policy, or an adapter on it."""

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Verdicts beside the baseline's, in the order of the queries, and what else the request asks to measure."""
        ...

    async def info(self) -> ModelInfo: ...

    async def close(self) -> None: ...
