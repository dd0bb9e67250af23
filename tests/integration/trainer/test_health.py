"""The trainer answers health checks while it trains: torch stays off the event loop."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealkit.rpc.services import TrainerClient
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig, Optimisation, Policy, Progress, TrainingExample, TrainingSpec
from tests.integration.trainer.process import TrainerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SPEC = TrainingSpec(
    examples=tuple(TrainingExample(text=f"The lamp of Marrow number {n} burns green at night. " * 6) for n in range(8)),
    lora=LoraConfig(rank=8, alpha=16),
    optimisation=Optimisation(learning_rate=1e-3, epochs=5000, batch_size=4),
)
"""Ten thousand steps, which end after the test on any machine; it leaves the job."""
CHECKS = 20


async def test_health_answers_while_a_job_trains(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", hidden=128, layers=4, context=512)
    trainer = TrainerProcess(tmp_path, {"model": str(model), "store_url": str(tmp_path / "store"), "threads": "1"})
    client = TrainerClient(trainer.address)
    try:
        await trainer.ready(client)
        updates = client.train_adapter(Policy(name="policies/base"), SPEC, owner="runs/health")
        async with grpc.aio.insecure_channel(trainer.address) as channel, aclosing(updates):
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="seal.trainer.v1.TrainerService")
            for _ in range(CHECKS):
                assert isinstance(await anext(updates), Progress), "the job trains"
                answer = await health.Check(request, timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await client.close()
        trainer.kill()
