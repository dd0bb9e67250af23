"""The fake services behind real gRPC: `python -m tests.integration.controller.fake_services_process PORT SECONDS [N]`.

With N, the first N evaluations are answered, and all later ones are held until the process ends: a run gets so far and
no further, however fast the machine is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from seal.type.v1 import model_pb2

from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.types import (
    EvaluationRequest,
    LoraConfig,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Sampling,
    TrainingSpec,
)
from tests.unit.controller.controller_fakes import MODEL, FakeServices


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def SampleSelfEdits(self, request: Any, context: Any) -> Any:
        prompts = [(c.context_id, from_pb(c.prompt, Prompt), list(c.indices)) for c in request.contexts]
        policy, sampling = from_pb(request.policy, Policy), from_pb(request.sampling, Sampling)
        async for completion in self.fake.sample(policy, prompts, sampling, editor=request.editor):
            yield to_pb(completion, generator_pb2.SampleSelfEditsResponse)

    async def GetGeneratorInfo(self, request: Any, context: Any) -> Any:
        return generator_pb2.GetGeneratorInfoResponse(base_model=to_pb(MODEL, model_pb2.BaseModel))


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def TrainAdapter(self, request: Any, context: Any) -> Any:
        policy, spec = from_pb(request.policy, Policy), from_pb(request.spec, TrainingSpec)
        async for update in self.fake.train_adapter(policy, spec, owner=request.owner):
            yield trainer_pb2.TrainAdapterResponse(**_update(update))

    async def TrainPolicy(self, request: Any, context: Any) -> Any:
        updates = self.fake.train_policy(
            from_pb(request.parent, Policy),
            [from_pb(example, PolicyExample) for example in request.examples],
            from_pb(request.lora, LoraConfig),
            from_pb(request.optimisation, Optimisation),
            from_parent=request.from_parent,
            seed=request.seed,
            owner=request.owner,
        )
        async for update in updates:
            yield trainer_pb2.TrainPolicyResponse(**_update(update))

    async def GetTrainerInfo(self, request: Any, context: Any) -> Any:
        return trainer_pb2.GetTrainerInfoResponse(base_model=to_pb(MODEL, model_pb2.BaseModel))


class Evaluator(evaluator_pb2_grpc.EvaluatorServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    async def Evaluate(self, request: Any, context: Any) -> Any:
        evaluation = await self.fake.evaluate(from_pb(request, EvaluationRequest))
        return to_pb(evaluation, evaluator_pb2.EvaluateResponse)

    async def GetEvaluatorInfo(self, request: Any, context: Any) -> Any:
        return evaluator_pb2.GetEvaluatorInfoResponse(base_model=to_pb(MODEL, model_pb2.BaseModel))


def _update(update: Any) -> dict[str, Any]:
    if isinstance(update, Progress):
        return {"progress": to_pb(update, trainer_pb2.Progress)}
    return {"result": to_pb(update, trainer_pb2.TrainingResult)}


async def main(port: int, fake: FakeServices, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
    """Serves the fake until the process ends."""
    server = grpc.aio.server(interceptors=interceptors)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Generator(fake), server)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Trainer(fake), server)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(Evaluator(fake), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def services(seconds: float, evaluations: int | None) -> FakeServices:
    """Fakes whose calls take `seconds`. All evaluations after so many are held."""
    fake = FakeServices(seconds=seconds)

    async def hold(call: str, what: str) -> None:
        if call == "evaluate" and fake.calls[call] > evaluations:
            await asyncio.Event().wait()

    if evaluations is not None:
        fake.before = hold
    return fake


if __name__ == "__main__":
    _port, _seconds, *_evaluations = sys.argv[1:]
    asyncio.run(main(int(_port), services(float(_seconds), int(_evaluations[0]) if _evaluations else None)))
