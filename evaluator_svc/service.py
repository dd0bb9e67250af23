"""`seal.evaluator.v1.EvaluatorService` over a backend."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import grpc
from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc

from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Backend
from sealkit.judges import judge_names
from sealkit.judges.settings import JudgeSettings
from sealkit.rpc.convert import (
    adapter_ref_from_pb,
    early_stopping_from_pb,
    evaluation_to_pb,
    model_info_to_pb,
    policy_from_pb,
    query_from_pb,
    sampling_from_pb,
)


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    full_names: tuple[str, ...] = (evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name,)

    def __init__(self, backend: Backend, *, kept_verdicts: int, judge_settings: JudgeSettings | None = None) -> None:
        self._backend = backend
        self._evaluator = Evaluator(backend, kept_verdicts=kept_verdicts, judge_settings=judge_settings)

    def register(self, server: grpc.aio.Server) -> None:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(self, server)

    async def start(self) -> None:
        await self._backend.start()

    async def close(self) -> None:
        await self._evaluator.close()
        await self._backend.close()

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> evaluator_pb2.EvaluateResponse:
        evaluation = await self._evaluator.evaluate(
            policy_from_pb(request.policy),
            adapter_ref_from_pb(request.adapter),
            [query_from_pb(q) for q in request.queries],
            sampling=sampling_from_pb(request.sampling),
            judge=request.judge,
            retention_queries=[query_from_pb(q) for q in request.retention_queries],
            retention_limit=request.retention_limit,
            measure_divergence=request.measure_divergence,
            early_stopping=early_stopping_from_pb(request.early_stopping)
            if request.HasField("early_stopping")
            else None,
            fresh=request.fresh,
        )
        return evaluation_to_pb(evaluation)

    async def GetEvaluatorInfo(
        self, _request: evaluator_pb2.GetEvaluatorInfoRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> evaluator_pb2.GetEvaluatorInfoResponse:
        return evaluator_pb2.GetEvaluatorInfoResponse(
            base_model=model_info_to_pb(self._backend.info),
            backend=self._backend.name,
            judges=judge_names(),
            version=version("seal-suite"),
        )
