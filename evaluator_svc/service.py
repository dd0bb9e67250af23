"""`seal.evaluator.v1.EvaluatorService` over a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import grpc
from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.type.v1 import answer_pb2, model_pb2

from evaluator_svc.answer import answer
from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Backend
from sealkit.judges import judge_names
from sealkit.judges.settings import JudgeSettings
from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.types import AnswerDelta, EvaluationRequest, Policy, Prompt, Sampling


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    full_names: tuple[str, ...] = (evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name,)

    def __init__(self, backend: Backend, *, kept_verdicts: int, judge_settings: JudgeSettings | None = None) -> None:
        self._backend = backend
        self._evaluator = Evaluator(backend, kept_verdicts=kept_verdicts, judge_settings=judge_settings)

    def register(self, server: grpc.aio.Server) -> None:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(self, server)

    async def start(self) -> None:
        await self._backend.start()

    async def work(self) -> None:
        """Returns when the backend is closed; raises the error that it died of."""
        await self._backend.ended()

    async def close(self) -> None:
        await self._evaluator.close()
        await self._backend.close()

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> evaluator_pb2.EvaluateResponse:
        evaluation = await self._evaluator.evaluate(from_pb(request, EvaluationRequest))
        return to_pb(evaluation, evaluator_pb2.EvaluateResponse)

    async def Answer(
        self, request: evaluator_pb2.AnswerRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[evaluator_pb2.AnswerResponse]:
        asked = from_pb(request.policy, Policy), from_pb(request.prompt, Prompt), from_pb(request.sampling, Sampling)
        async with aclosing(answer(self._backend, *asked, base_model=request.base_model)) as updates:
            async for update in updates:
                if isinstance(update, AnswerDelta):
                    yield evaluator_pb2.AnswerResponse(delta=to_pb(update, answer_pb2.AnswerDelta))
                else:
                    yield evaluator_pb2.AnswerResponse(end=to_pb(update, answer_pb2.AnswerEnd))

    async def GetEvaluatorInfo(
        self, _request: evaluator_pb2.GetEvaluatorInfoRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> evaluator_pb2.GetEvaluatorInfoResponse:
        return evaluator_pb2.GetEvaluatorInfoResponse(
            base_model=to_pb(self._backend.info, model_pb2.BaseModel),
            occupancy=to_pb(busy, model_pb2.Occupancy) if (busy := self._backend.occupancy) else None,
            backend=self._backend.name,
            judges=judge_names(),
            version=version("seal-suite"),
        )
