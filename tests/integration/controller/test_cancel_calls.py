"""Cancelling goes through to the services: their calls, over real gRPC, are cancelled long before a lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import pytest_asyncio
from seal.evaluator.v1 import evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2_grpc

from controller.db import runs
from sealkit.rpc.services import EvaluatorClient, GeneratorClient, TrainerClient
from tests.integration.controller.fake_services_process import Evaluator, Generator, Trainer
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import FakeServices
from tests.unit.controller.controller_system import System, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """The controller in this process; its services behind gRPC."""
    fake, server = FakeServices(), grpc.aio.server()
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Generator(fake), server)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Trainer(fake), server)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(Evaluator(fake), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    clients = GeneratorClient(address), TrainerClient(address), EvaluatorClient(address)
    made = System(tmp_path)
    made.fake = fake  # type: ignore[attr-defined]
    made.services = remote(*clients)
    await made.database.start()
    yield made
    for client in clients:
        await client.close()
    await server.stop(None)
    await made.database.close()


def remote(generator: GeneratorClient, trainer: TrainerClient, evaluator: EvaluatorClient) -> Any:
    """The three clients as one."""
    names = ("train_adapter", "train_policy", "join_adapters", "trainer_info", "info")
    return SimpleNamespace(
        sample=generator.sample, evaluate=evaluator.evaluate, **{name: getattr(trainer, name) for name in names}
    )


@pytest.mark.parametrize("call", ["sample", "train", "evaluate", "policy"])
async def test_cancelling_a_run_cancels_the_calls_under_way(system: System, call: str) -> None:
    fake: FakeServices = system.fake  # type: ignore[attr-defined]

    async def before(came: str, what: str) -> None:
        if came == call:
            await asyncio.Event().wait()

    fake.before = before
    async with system.working(lease=1000):
        run = await system.create(rounds=1, held_out={"samples": 0})
        await until(lambda: fake.calls[call] >= 1)
        await system.database.write(runs.cancel, change(run.name, ""))
        await until(lambda: fake.running == 0)
