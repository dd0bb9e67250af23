"""Fake services that tell what they took, which weights came out and which build they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sealkit.rpc.protocols import TrainerInfo
from sealkit.types import (
    Evaluation,
    EvaluationRequest,
    ModelInfo,
    Policy,
    Progress,
    TrainingResult,
    TrainingSpec,
    Usage,
    digest_of,
)
from tests.unit.controller.controller_fakes import MODEL, FakeServices

SAMPLED = Usage(prompt_tokens=20, completion_tokens=5, device_seconds=1.0)
TRAINED = Usage(train_tokens=40, device_seconds=2.0)
ASKED = Usage(prompt_tokens=30, completion_tokens=6, device_seconds=0.5)


class TellingServices(FakeServices):
    """`build` and `weights` may be changed between a trial and its rerun; `retrained` and `fresh` say how often it was
    asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.build = {"torch": "2.13", "threads": "1"}
        self.engine = "1"
        self.weights = "as they were"
        self.retrained = self.fresh = 0

    async def info(self) -> ModelInfo:
        return MODEL.model_copy(update={"build": self.build})

    async def trainer_info(self) -> TrainerInfo:
        told = await super().trainer_info()
        return told.model_copy(update={"model": await self.info(), "engine_version": self.engine})

    async def sample(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for completion in super().sample(*args, **kwargs):
            yield completion.model_copy(update={"usage": SAMPLED})

    async def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        self.retrained += retrain
        async for update in super().train_adapter(policy, spec, owner=owner, retrain=retrain):
            if isinstance(update, TrainingResult):
                sha = digest_of(self.weights, update.adapter.digest)
                update = update.model_copy(update={"weights_sha256": sha, "usage": TRAINED})
            yield update

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        self.fresh += request.fresh
        found = await super().evaluate(request)
        return found.model_copy(update={"usage": ASKED, "judge_version": "1"})
