"""Clients of the three model services, in terms of `sealkit.types`. Create them within the event loop that uses them.

The bound run and trial ids are sent with every call. Errors are raised as `sealkit.errors` classes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from seal.type.v1 import model_pb2, text_pb2, training_pb2

from sealkit.errors import DeadlineExceeded, QueueFull, SealError, Unavailable
from sealkit.observability import tracing
from sealkit.resources import ServiceReplica
from sealkit.routing import Route
from sealkit.rpc import correlation
from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.rpc.protocols import TrainerInfo
from sealkit.rpc.replicas import Replica, Replicas, Said
from sealkit.rpc.status import rpc_errors
from sealkit.rpc.tls import Identity
from sealkit.types import (
    AdapterRef,
    AnswerDelta,
    AnswerEnd,
    Completion,
    Evaluation,
    EvaluationRequest,
    LoraConfig,
    ModelInfo,
    Occupancy,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Sampling,
    TrainingResult,
    TrainingSpec,
)

if TYPE_CHECKING:
    import grpc

_INFO_SECONDS = 5.0


class _ServiceClient:
    """Common base: the replicas, a deadline in seconds for each call, errors that name the peer.

    A call whose replica is dead or full is retried at another at once; `on_full` is called if all are full.
    """

    _service: ClassVar[str]
    _stub_class: ClassVar[Any]
    _ask: ClassVar[tuple[str, Any]]
    """The method that reports the base model and how busy it is, and its request."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 3600,
        max_message_mib: int = 64,
        identity: Identity | None = None,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        """`address`: `host:port`, several of them separated by commas, a DNS name with many addresses."""
        self.address = address
        self._timeout = timeout
        self._on_full = on_full
        self._replicas = Replicas(
            self._service,
            address,
            self._stub_class,
            self._ask_one,
            max_message_mib=max_message_mib,
            identity=identity,
        )

    async def close(self) -> None:
        """Closes the channels; calls under way are cancelled."""
        await self._replicas.close()

    async def info(self) -> ModelInfo:
        """The base model of all replicas. Raises ModelMismatch if they differ."""
        return await self._replicas.model()

    async def look(self) -> None:
        """Asks every replica how busy it is. Raises InvalidConfig, PermissionDenied."""
        await self._replicas.look()

    def replicas(self) -> list[ServiceReplica]:
        """The replicas as they last were."""
        return self._replicas.seen()

    async def _ask_one(self, replica: Replica) -> Said:
        method, request = self._ask
        with rpc_errors(f"{self._service} at {replica.address}"):
            answer = await getattr(replica.stub, method)(request, timeout=_INFO_SECONDS)
        busy = from_pb(answer.occupancy, Occupancy) if answer.HasField("occupancy") else None
        return Said(from_pb(answer.base_model, ModelInfo), busy)

    async def _call(self, method: str, request: Any, deadline: float | None = None) -> Any:
        tried: set[str] = set()
        while True:
            try:
                async with self._replicas.one(tried) as replica:
                    with self._traced(method, replica) as place, rpc_errors(f"{self._service} at {replica.address}"):
                        return await getattr(replica.stub, method)(
                            request, timeout=deadline or self._timeout, metadata=correlation.to_metadata(place)
                        )
            except (Unavailable, QueueFull) as error:
                self._raise_unless_others(error, tried)

    async def _stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """The responses; the call is cancelled if the reader stops before the end. A broken call is retried at another
        replica as long as it has yielded nothing."""
        tried: set[str] = set()
        while True:
            began = False
            try:
                async with self._replicas.one(tried) as replica:
                    async with aclosing(self._stream_of(replica, method, request)) as responses:
                        async for response in responses:
                            began = True
                            yield response
                return
            except (Unavailable, QueueFull) as error:
                if began:
                    raise
                self._raise_unless_others(error, tried)

    async def _stream_of(self, replica: Replica, method: str, request: Any) -> AsyncGenerator[Any, None]:
        with self._traced(method, replica) as place:
            call: grpc.aio.UnaryStreamCall[Any, Any] = getattr(replica.stub, method)(
                request, timeout=self._timeout, metadata=correlation.to_metadata(place)
            )
            try:
                with rpc_errors(f"{self._service} at {replica.address}"):
                    async for response in call:
                        yield response
            finally:
                call.cancel()

    def _traced(self, method: str, replica: Replica) -> AbstractContextManager[str]:
        return tracing.call(f"{self._service}/{method}", {"rpc.method": method, "server.address": replica.address})

    def _raise_unless_others(self, error: SealError, tried: set[str]) -> None:
        if self._replicas.others(tried):
            return
        if isinstance(error, QueueFull):
            self._on_full()
        raise error


class GeneratorClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Generator`."""

    _service = "generator"
    _stub_class = generator_pb2_grpc.GeneratorServiceStub
    _ask = ("GetGeneratorInfo", generator_pb2.GetGeneratorInfoRequest())

    async def sample(
        self,
        policy: Policy,
        prompts: Sequence[tuple[str, Prompt, Sequence[int]]],
        sampling: Sampling,
        *,
        editor: str = "",
    ) -> AsyncIterator[Completion]:
        contexts = [
            generator_pb2.ContextPrompt(context_id=context_id, prompt=to_pb(prompt, text_pb2.Prompt), indices=indices)
            for context_id, prompt, indices in prompts
        ]
        request = generator_pb2.SampleSelfEditsRequest(
            policy=to_pb(policy, model_pb2.Policy),
            contexts=contexts,
            sampling=to_pb(sampling, text_pb2.Sampling),
            editor=editor,
        )
        async with aclosing(self._stream("SampleSelfEdits", request)) as responses:
            async for response in responses:
                yield from_pb(response, Completion)


class TrainerClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Trainer`."""

    _service = "trainer"
    _stub_class = trainer_pb2_grpc.TrainerServiceStub
    _ask = ("GetTrainerInfo", trainer_pb2.GetTrainerInfoRequest())

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        request = trainer_pb2.TrainAdapterRequest(
            policy=to_pb(policy, model_pb2.Policy),
            spec=to_pb(spec, training_pb2.TrainingSpec),
            owner=owner,
            retrain=retrain,
        )
        return self._train("TrainAdapter", request)

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
            parent=to_pb(parent, model_pb2.Policy),
            examples=[to_pb(e, trainer_pb2.PolicyExample) for e in examples],
            lora=to_pb(lora, training_pb2.LoraConfig),
            optimisation=to_pb(optimisation, training_pb2.Optimisation),
            from_parent=from_parent,
            seed=seed,
            owner=owner,
        )
        return self._train("TrainPolicy", request)

    async def _train(self, method: str, request: Any) -> AsyncIterator[Progress | TrainingResult]:
        finished = False
        async with aclosing(self._stream(method, request)) as responses:
            async for response in responses:
                finished = response.WhichOneof("update") == "result"
                if finished:
                    yield from_pb(response.result, TrainingResult)
                else:
                    yield from_pb(response.progress, Progress)
        if not finished:
            raise Unavailable(f"{self._replicas.peer} ended the call without a result")

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        request = trainer_pb2.JoinAdaptersRequest(
            policy=to_pb(policy, model_pb2.Policy), adapter=to_pb(adapter, model_pb2.AdapterRef)
        )
        joined = await self._call("JoinAdapters", request)
        return from_pb(joined.adapter, AdapterRef)

    async def route_adapters(self, routes: Sequence[Route]) -> AdapterRef:
        request = trainer_pb2.RouteAdaptersRequest(routes=[to_pb(route, trainer_pb2.Route) for route in routes])
        routed = await self._call("RouteAdapters", request)
        return from_pb(routed.adapter, AdapterRef)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        counted = await self._call("CountTokens", trainer_pb2.CountTokensRequest(texts=texts))
        return list(counted.counts)

    async def delete_adapters(self, adapters: Sequence[AdapterRef]) -> int:
        request = trainer_pb2.DeleteAdaptersRequest(
            adapters=[to_pb(adapter, model_pb2.AdapterRef) for adapter in adapters]
        )
        answer = await self._call("DeleteAdapters", request)
        return int(answer.deleted)

    async def trainer_info(self) -> TrainerInfo:
        try:
            answer = await self._call("GetTrainerInfo", trainer_pb2.GetTrainerInfoRequest(), _INFO_SECONDS)
        except (
            DeadlineExceeded
        ) as error:  # cut off: a peer that does not report its model within seconds is unavailable
            raise Unavailable(error.message) from error
        return TrainerInfo(
            model=from_pb(answer.base_model, ModelInfo),
            target_modules=tuple(answer.target_modules),
            engine_version=answer.engine_version,
            max_concurrent_jobs=answer.max_concurrent_jobs,
        )


class EvaluatorClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Evaluator`."""

    _service = "evaluator"
    _stub_class = evaluator_pb2_grpc.EvaluatorServiceStub
    _ask = ("GetEvaluatorInfo", evaluator_pb2.GetEvaluatorInfoRequest())

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        message = to_pb(request, evaluator_pb2.EvaluateRequest)
        return from_pb(await self._call("Evaluate", message), Evaluation)

    async def answer(
        self, policy: Policy, prompt: Prompt, sampling: Sampling, *, base_model: str = ""
    ) -> AsyncGenerator[AnswerDelta | AnswerEnd, None]:
        request = evaluator_pb2.AnswerRequest(
            policy=to_pb(policy, model_pb2.Policy),
            prompt=to_pb(prompt, text_pb2.Prompt),
            sampling=to_pb(sampling, text_pb2.Sampling),
            base_model=base_model,
        )
        ended = False
        async with aclosing(self._stream("Answer", request)) as responses:
            async for response in responses:
                ended = response.WhichOneof("update") == "end"
                yield from_pb(response.end, AnswerEnd) if ended else from_pb(response.delta, AnswerDelta)
        if not ended:
            raise Unavailable(f"{self._replicas.peer} ended an answer in the middle")
