"""Clients of the three model services, in `sealkit.types` only. To be made within the event loop that uses them.

Run and trial ids bound to the log travel with every call. Errors come out as `sealkit.errors` classes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.generator.v1 import generator_pb2, generator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc

from sealkit.errors import DeadlineExceeded, QueueFull, SealError, Unavailable
from sealkit.observability import tracing
from sealkit.rpc import convert, correlation
from sealkit.rpc.protocols import TrainerInfo
from sealkit.rpc.replicas import Replica, Replicas
from sealkit.rpc.status import rpc_errors
from sealkit.rpc.tls import Identity
from sealkit.types import (
    AdapterRef,
    Completion,
    EarlyStopping,
    Evaluation,
    LoraConfig,
    ModelInfo,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Query,
    Sampling,
    TrainingResult,
    TrainingSpec,
)

if TYPE_CHECKING:
    import grpc

_INFO_SECONDS = 5.0


class _ServiceClient:
    """What the three have in common: the replicas, a deadline in seconds for each call, errors that name the peer.

    A call that finds its replica dead or full goes to another at once; `on_full` is told where all are full.
    """

    _service: ClassVar[str]
    _stub_class: ClassVar[Any]
    _ask: ClassVar[tuple[str, Any]]
    """Method that tells the base model, and its request."""

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
            self._held_model,
            max_message_mib=max_message_mib,
            identity=identity,
        )

    async def close(self) -> None:
        """Closes the channels; calls under way are cancelled."""
        await self._replicas.close()

    async def info(self) -> ModelInfo:
        """The base model that every replica holds. Raises ModelMismatch where they differ."""
        return await self._replicas.model()

    async def _held_model(self, replica: Replica) -> ModelInfo:
        method, request = self._ask
        with rpc_errors(f"{self._service} at {replica.address}"):
            answer = await getattr(replica.stub, method)(request, timeout=_INFO_SECONDS)
        return convert.model_info_from_pb(answer.base_model)

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
        """The responses; the call is cancelled where the reader stops before the end. One that broke goes to another
        replica as long as nothing has come of it."""
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
            generator_pb2.ContextPrompt(context_id=context_id, prompt=convert.prompt_to_pb(prompt), indices=indices)
            for context_id, prompt, indices in prompts
        ]
        request = generator_pb2.SampleSelfEditsRequest(
            policy=convert.policy_to_pb(policy),
            contexts=contexts,
            sampling=convert.sampling_to_pb(sampling),
            editor=editor,
        )
        async with aclosing(self._stream("SampleSelfEdits", request)) as responses:
            async for response in responses:
                yield convert.completion_from_pb(response)


class TrainerClient(_ServiceClient):
    """Implements `sealkit.rpc.protocols.Trainer`."""

    _service = "trainer"
    _stub_class = trainer_pb2_grpc.TrainerServiceStub
    _ask = ("GetTrainerInfo", trainer_pb2.GetTrainerInfoRequest())

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        request = trainer_pb2.TrainAdapterRequest(
            policy=convert.policy_to_pb(policy), spec=convert.training_spec_to_pb(spec), owner=owner, retrain=retrain
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
            parent=convert.policy_to_pb(parent),
            examples=[convert.policy_example_to_pb(e) for e in examples],
            lora=convert.lora_config_to_pb(lora),
            optimisation=convert.optimisation_to_pb(optimisation),
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
                    yield convert.training_result_from_pb(response.result)
                else:
                    yield convert.progress_from_pb(response.progress)
        if not finished:
            raise Unavailable(f"{self._replicas.peer} ended the call without a result")

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        request = trainer_pb2.JoinAdaptersRequest(
            policy=convert.policy_to_pb(policy), adapter=convert.adapter_ref_to_pb(adapter)
        )
        joined = await self._call("JoinAdapters", request)
        return AdapterRef(digest=joined.adapter.digest)

    async def trainer_info(self) -> TrainerInfo:
        try:
            answer = await self._call("GetTrainerInfo", trainer_pb2.GetTrainerInfoRequest(), _INFO_SECONDS)
        except DeadlineExceeded as error:  # cut off: who does not say who it is within seconds is away
            raise Unavailable(error.message) from error
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
    _ask = ("GetEvaluatorInfo", evaluator_pb2.GetEvaluatorInfoRequest())

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
        early_stopping: EarlyStopping | None = None,
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
            early_stopping=convert.early_stopping_to_pb(early_stopping) if early_stopping else None,
            fresh=fresh,
        )
        return convert.evaluation_from_pb(await self._call("Evaluate", request))
