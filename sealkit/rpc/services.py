"""Clients of the three model services, in `sealkit.types` only. To be made within the event loop that uses them.

Run and trial ids bound to the log travel with every call. Errors come out as `sealkit.errors` classes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc

from sealkit.errors import Unavailable
from sealkit.rpc import convert, correlation
from sealkit.rpc.channel import open_channel
from sealkit.rpc.protocols import TrainerInfo
from sealkit.rpc.status import rpc_errors
from sealkit.types import (
    AdapterRef,
    Completion,
    Evaluation,
    LoraConfig,
    ModelInfo,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Query,
    Race,
    Sampling,
    TrainingResult,
    TrainingSpec,
)

if TYPE_CHECKING:
    import grpc

_INFO_SECONDS = 10.0


class _ServiceClient:
    """What the three have in common: a channel, a deadline in seconds for each call, errors that name the peer."""

    _service: ClassVar[str]
    _stub_class: ClassVar[Any]

    def __init__(self, address: str, *, timeout: float = 3600, max_message_mib: int = 64) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address, max_message_mib=max_message_mib)
        self._stub = self._stub_class(self._channel)
        self._peer = f"{self._service} at {address}"

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        await self._channel.close()

    async def _call(self, method: Any, request: Any, deadline: float | None = None) -> Any:
        with rpc_errors(self._peer):
            return await method(request, timeout=deadline or self._timeout, metadata=correlation.to_metadata())

    async def _stream(self, method: Any, request: Any) -> AsyncGenerator[Any, None]:
        """The responses; the call is cancelled where the reader stops before the end."""
        call: grpc.aio.UnaryStreamCall[Any, Any] = method(
            request, timeout=self._timeout, metadata=correlation.to_metadata()
        )
        try:
            with rpc_errors(self._peer):
                async for response in call:
                    yield response
        finally:
            call.cancel()


class GeneratorClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Generator`."""

    _service = "generator"
    _stub_class = generator_pb2_grpc.GeneratorServiceStub

    async def sample(
        self, policy: Policy, prompts: Sequence[tuple[str, Prompt, Sequence[int]]], sampling: Sampling
    ) -> AsyncIterator[Completion]:
        contexts = [
            generator_pb2.ContextPrompt(context_id=context_id, prompt=convert.prompt_to_pb(prompt), indices=indices)
            for context_id, prompt, indices in prompts
        ]
        request = generator_pb2.SampleSelfEditsRequest(
            policy=convert.policy_to_pb(policy), contexts=contexts, sampling=convert.sampling_to_pb(sampling)
        )
        async with aclosing(self._stream(self._stub.SampleSelfEdits, request)) as responses:
            async for response in responses:
                yield convert.completion_from_pb(response)

    async def info(self) -> ModelInfo:
        request = generator_pb2.GetGeneratorInfoRequest()
        answer = await self._call(self._stub.GetGeneratorInfo, request, _INFO_SECONDS)
        return convert.model_info_from_pb(answer.base_model)


class TrainerClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Trainer`."""

    _service = "trainer"
    _stub_class = trainer_pb2_grpc.TrainerServiceStub

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        request = trainer_pb2.TrainAdapterRequest(
            policy=convert.policy_to_pb(policy), spec=convert.training_spec_to_pb(spec), owner=owner, retrain=retrain
        )
        return self._train(self._stub.TrainAdapter, request)

    def train_policy(
        self,
        parent: Policy,
        examples: Sequence[PolicyExample],
        lora: LoraConfig,
        optimisation: Optimisation,
        *,
        from_parent: bool,
        seed: int,
        owner: str,
    ) -> AsyncIterator[Progress | TrainingResult]:
        request = trainer_pb2.TrainPolicyRequest(
            parent=convert.policy_to_pb(parent),
            examples=[convert.policy_example_to_pb(e) for e in examples],
            lora=convert.lora_config_to_pb(lora),
            optimisation=convert.optimisation_to_pb(optimisation),
            from_parent=from_parent,
            seed=seed,
            owner=owner,
        )
        return self._train(self._stub.TrainPolicy, request)

    async def _train(self, method: Any, request: Any) -> AsyncIterator[Progress | TrainingResult]:
        finished = False
        async with aclosing(self._stream(method, request)) as responses:
            async for response in responses:
                finished = response.WhichOneof("update") == "result"
                if finished:
                    yield convert.training_result_from_pb(response.result)
                else:
                    yield convert.progress_from_pb(response.progress)
        if not finished:
            raise Unavailable(f"{self._peer} ended the call without a result")

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        request = trainer_pb2.JoinAdaptersRequest(
            policy=convert.policy_to_pb(policy), adapter=convert.adapter_ref_to_pb(adapter)
        )
        joined = await self._call(self._stub.JoinAdapters, request)
        return AdapterRef(digest=joined.adapter.digest, uri=joined.adapter.uri)

    async def info(self) -> ModelInfo:
        return (await self.trainer_info()).model

    async def trainer_info(self) -> TrainerInfo:
        answer = await self._call(self._stub.GetTrainerInfo, trainer_pb2.GetTrainerInfoRequest(), _INFO_SECONDS)
        return TrainerInfo(
            model=convert.model_info_from_pb(answer.base_model),
            target_modules=tuple(answer.target_modules),
            engine_version=answer.engine_version,
            max_concurrent_jobs=answer.max_concurrent_jobs,
        )


class EvaluatorClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Evaluator`."""

    _service = "evaluator"
    _stub_class = evaluator_pb2_grpc.EvaluatorServiceStub

    async def evaluate(
        self,
        policy: Policy,
        adapter: AdapterRef | None,
        queries: Sequence[Query],
        *,
        sampling: Sampling,
        judge: str,
        retention_queries: Sequence[Query] = (),
        retention_limit: int = 0,
        measure_divergence: bool = False,
        race: Race | None = None,
        fresh: bool = False,
    ) -> Evaluation:
        request = evaluator_pb2.EvaluateRequest(
            policy=convert.policy_to_pb(policy),
            adapter=convert.adapter_ref_to_pb(adapter),
            queries=[convert.query_to_pb(q) for q in queries],
            sampling=convert.sampling_to_pb(sampling),
            judge=judge,
            retention_queries=[convert.query_to_pb(q) for q in retention_queries],
            retention_limit=retention_limit,
            measure_divergence=measure_divergence,
            race=convert.race_to_pb(race) if race else None,
            fresh=fresh,
        )
        return convert.evaluation_from_pb(await self._call(self._stub.Evaluate, request))

    async def info(self) -> ModelInfo:
        request = evaluator_pb2.GetEvaluatorInfoRequest()
        answer = await self._call(self._stub.GetEvaluatorInfo, request, _INFO_SECONDS)
        return convert.model_info_from_pb(answer.base_model)
