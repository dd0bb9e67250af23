"""The trainer answers health checks while it trains: torch stays off the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealkit.rpc.services import TrainerClient
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig, Optimisation, Policy, Progress, TrainingExample, TrainingResult, TrainingSpec
from tests.integration.trainer.process import TrainerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SPEC = TrainingSpec(
    examples=tuple(TrainingExample(text=f"The lamp of Marrow number {n} burns green at night. " * 6) for n in range(8)),
    lora=LoraConfig(rank=8, alpha=16),
    optimisation=Optimisation(learning_rate=1e-3, epochs=20, batch_size=4),
)


async def test_health_answers_while_a_job_trains(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", hidden=128, layers=4, context=512)
    trainer = TrainerProcess(tmp_path, {"model": str(model), "store_url": str(tmp_path / "store"), "threads": "1"})
    client = TrainerClient(trainer.address)
    steps: list[int] = []
    answers = 0

    async def train() -> TrainingResult:
        async for update in client.train_adapter(Policy(name="policies/base"), SPEC, owner="runs/health"):
            if isinstance(update, TrainingResult):
                return update
            assert isinstance(update, Progress)
            steps.append(update.step)
        raise AssertionError("the stream ended without a result")

    try:
        await trainer.ready(client)
        training = asyncio.create_task(train())
        async with grpc.aio.insecure_channel(trainer.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="seal.trainer.v1.TrainerService")
            while not training.done():
                under_way = bool(steps)
                answer = await health.Check(request, timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                answers += under_way and not training.done()
                await asyncio.sleep(0.01)
        result = await training
    finally:
        await client.close()
        trainer.kill()
    assert result.steps == 40
    assert answers, "no check fell into the training"
