"""The fake services behind real gRPC: `python -m tests.integration.controller.fake_services_process PORT SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc

from sealkit.rpc import convert
from sealkit.types import Progress
from tests.unit.controller.controller_fakes import MODEL, FakeServices


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def SampleSelfEdits(self, request: Any, context: Any) -> Any:
        prompts = [(c.context_id, convert.prompt_from_pb(c.prompt), list(c.indices)) for c in request.contexts]
        policy, sampling = convert.policy_from_pb(request.policy), convert.sampling_from_pb(request.sampling)
        async for completion in self.fake.sample(policy, prompts, sampling, editor=request.editor):
            yield convert.completion_to_pb(completion)

    async def GetGeneratorInfo(self, request: Any, context: Any) -> Any:
        return generator_pb2.GetGeneratorInfoResponse(base_model=convert.model_info_to_pb(MODEL))


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def TrainAdapter(self, request: Any, context: Any) -> Any:
        policy, spec = convert.policy_from_pb(request.policy), convert.training_spec_from_pb(request.spec)
        async for update in self.fake.train_adapter(policy, spec, owner=request.owner):
            yield trainer_pb2.TrainAdapterResponse(**_update(update))

    async def TrainPolicy(self, request: Any, context: Any) -> Any:
        updates = self.fake.train_policy(
            convert.policy_from_pb(request.parent),
            [convert.policy_example_from_pb(example) for example in request.examples],
            convert.lora_config_from_pb(request.lora),
            convert.optimisation_from_pb(request.optimisation),
            from_parent=request.from_parent,
            seed=request.seed,
            owner=request.owner,
        )
        async for update in updates:
            yield trainer_pb2.TrainPolicyResponse(**_update(update))

    async def GetTrainerInfo(self, request: Any, context: Any) -> Any:
        return trainer_pb2.GetTrainerInfoResponse(base_model=convert.model_info_to_pb(MODEL))


class Evaluator(evaluator_pb2_grpc.EvaluatorServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def Evaluate(self, request: Any, context: Any) -> Any:
        return convert.evaluation_to_pb(await self.fake.evaluate(convert.evaluation_request_from_pb(request)))

    async def GetEvaluatorInfo(self, request: Any, context: Any) -> Any:
        return evaluator_pb2.GetEvaluatorInfoResponse(base_model=convert.model_info_to_pb(MODEL))


def _update(update: Any) -> dict[str, Any]:
    if isinstance(update, Progress):
        return {"progress": convert.progress_to_pb(update)}
    return {"result": convert.training_result_to_pb(update)}


async def main(port: int, fake: FakeServices, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
    """Serves the fake until the process ends."""
    server = grpc.aio.server(interceptors=interceptors)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Generator(fake), server)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Trainer(fake), server)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(Evaluator(fake), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), FakeServices(seconds=float(sys.argv[2]))))
