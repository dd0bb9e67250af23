"""`seal.trainer.v1.TrainerService`: converts messages and calls the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from seal.type.v1 import model_pb2

from sealkit.routing import Route
from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.types import AdapterRef, LoraConfig, Optimisation, Policy, PolicyExample, Progress, TrainingSpec
from trainer_svc.build import Built, build
from trainer_svc.engine import ENGINE_VERSION
from trainer_svc.settings import TrainerSettings
from trainer_svc.trainer import Trainer


class TrainerService(trainer_pb2_grpc.TrainerServiceServicer):
    full_names: tuple[str, ...] = (trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name,)

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._built: Built | None = None

    def register(self, server: grpc.aio.Server) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)

    async def start(self) -> None:
        self._built = await asyncio.to_thread(build, self._settings)

    async def work(self) -> None:
        """Returns when the engine ends; raises the error that it crashed with."""
        assert self._built is not None, "it works once it has started"
        await self._built.engine.ended()

    async def close(self) -> None:
        if self._built is not None:
            await asyncio.to_thread(self._built.engine.close)

    @property
    def _trainer(self) -> Trainer:
        assert self._built is not None, "the interceptor lets no call in before start"
        return self._built.trainer

    async def TrainAdapter(
        self, request: trainer_pb2.TrainAdapterRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[trainer_pb2.TrainAdapterResponse]:
        policy, spec = from_pb(request.policy, Policy), from_pb(request.spec, TrainingSpec)
        updates = self._trainer.train_adapter(policy, spec, request.owner, retrain=request.retrain)
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Progress):
                    yield trainer_pb2.TrainAdapterResponse(progress=to_pb(update, trainer_pb2.Progress))
                else:
                    yield trainer_pb2.TrainAdapterResponse(result=to_pb(update, trainer_pb2.TrainingResult))

    async def TrainPolicy(
        self, request: trainer_pb2.TrainPolicyRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[trainer_pb2.TrainPolicyResponse]:
        updates = self._trainer.train_policy(
            from_pb(request.parent, Policy),
            tuple(from_pb(example, PolicyExample) for example in request.examples),
            from_pb(request.lora, LoraConfig),
            from_pb(request.optimisation, Optimisation),
            from_parent=request.from_parent,
            seed=request.seed,
            owner=request.owner,
        )
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Progress):
                    yield trainer_pb2.TrainPolicyResponse(progress=to_pb(update, trainer_pb2.Progress))
                else:
                    yield trainer_pb2.TrainPolicyResponse(result=to_pb(update, trainer_pb2.TrainingResult))

    async def JoinAdapters(
        self, request: trainer_pb2.JoinAdaptersRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.JoinAdaptersResponse:
        policy, adapter = from_pb(request.policy, Policy), from_pb(request.adapter, AdapterRef)
        joined = await self._trainer.join_adapters(policy, adapter)
        return trainer_pb2.JoinAdaptersResponse(adapter=to_pb(joined, model_pb2.AdapterRef))

    async def RouteAdapters(
        self, request: trainer_pb2.RouteAdaptersRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.RouteAdaptersResponse:
        routed = await self._trainer.route_adapters([from_pb(route, Route) for route in request.routes])
        return trainer_pb2.RouteAdaptersResponse(adapter=to_pb(routed, model_pb2.AdapterRef))

    async def CountTokens(
        self, request: trainer_pb2.CountTokensRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.CountTokensResponse:
        return trainer_pb2.CountTokensResponse(counts=await self._trainer.count_tokens(list(request.texts)))

    async def DeleteAdapters(
        self, request: trainer_pb2.DeleteAdaptersRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.DeleteAdaptersResponse:
        adapters = [from_pb(adapter, AdapterRef) for adapter in request.adapters]
        return trainer_pb2.DeleteAdaptersResponse(deleted=await self._trainer.delete_adapters(adapters))

    async def GetTrainerInfo(
        self, _request: trainer_pb2.GetTrainerInfoRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trainer_pb2.GetTrainerInfoResponse:
        assert self._built is not None, "the interceptor lets no call in before start"
        return trainer_pb2.GetTrainerInfoResponse(
            base_model=to_pb(self._trainer.info, model_pb2.BaseModel),
            target_modules=self._trainer.target_modules,
            engine_version=ENGINE_VERSION,
            max_concurrent_jobs=self._settings.max_jobs,
            version=version("seal-suite"),
            occupancy=to_pb(self._built.engine.occupancy, model_pb2.Occupancy),
        )
