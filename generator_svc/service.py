"""`seal.generator.v1.GeneratorService` over a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc

from generator_svc.editors import Editors
from generator_svc.sampler import Write, sample
from sealkit.backends.base import Backend
from sealkit.rpc.convert import (
    completion_to_pb,
    model_info_to_pb,
    policy_from_pb,
    prompt_from_pb,
    sampling_from_pb,
)


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    full_names: tuple[str, ...] = (generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,)

    def __init__(self, backend: Backend, editors: Editors) -> None:
        self._backend = backend
        self._editors = editors

    def register(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def start(self) -> None:
        await self._backend.start()

    async def close(self) -> None:
        await self._backend.close()
        await self._editors.close()

    async def SampleSelfEdits(
        self, request: generator_pb2.SampleSelfEditsRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[generator_pb2.SampleSelfEditsResponse]:
        contexts = [(c.context_id, prompt_from_pb(c.prompt), list(c.indices)) for c in request.contexts]
        policy, sampling = policy_from_pb(request.policy), sampling_from_pb(request.sampling)
        write: Write = (
            partial(self._editors.write, request.editor)
            if request.editor
            else partial(self._backend.generate, policy=policy)
        )
        async for completion in sample(write, contexts, sampling):
            yield completion_to_pb(completion)

    async def GetGeneratorInfo(
        self, _request: generator_pb2.GetGeneratorInfoRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> generator_pb2.GetGeneratorInfoResponse:
        return generator_pb2.GetGeneratorInfoResponse(
            base_model=model_info_to_pb(self._backend.info),
            backend=self._backend.name,
            version=version("seal-suite"),
            editors=self._editors.names,
        )
