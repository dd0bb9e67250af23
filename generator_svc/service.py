"""`seal.generator.v1.GeneratorService` over a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.type.v1 import model_pb2

from generator_svc.editors import Editors
from generator_svc.sampler import Write, sample
from sealkit.backends.base import Backend
from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.types import Policy, Prompt, Sampling


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    full_names: tuple[str, ...] = (generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,)

    def __init__(self, backend: Backend, editors: Editors) -> None:
        self._backend = backend
        self._editors = editors

    def register(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def start(self) -> None:
        await self._backend.start()

    async def work(self) -> None:
        """Returns when the backend is closed; raises the error that it died of."""
        await self._backend.ended()

    async def close(self) -> None:
        await self._backend.close()
        await self._editors.close()

    async def SampleSelfEdits(
        self, request: generator_pb2.SampleSelfEditsRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[generator_pb2.SampleSelfEditsResponse]:
        contexts = [(c.context_id, from_pb(c.prompt, Prompt), list(c.indices)) for c in request.contexts]
        policy, sampling = from_pb(request.policy, Policy), from_pb(request.sampling, Sampling)
        write: Write = (
            partial(self._editors.write, request.editor)
            if request.editor
            else partial(self._backend.generate, policy=policy)
        )
        async for completion in sample(write, contexts, sampling):
            yield to_pb(completion, generator_pb2.SampleSelfEditsResponse)

    async def GetGeneratorInfo(
        self, _request: generator_pb2.GetGeneratorInfoRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> generator_pb2.GetGeneratorInfoResponse:
        return generator_pb2.GetGeneratorInfoResponse(
            base_model=to_pb(self._backend.info, model_pb2.BaseModel),
            occupancy=to_pb(busy, model_pb2.Occupancy) if (busy := self._backend.occupancy) else None,
            backend=self._backend.name,
            version=version("seal-suite"),
            editors=self._editors.names,
        )
