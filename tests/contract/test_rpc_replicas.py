"""Several replicas of one service behind one client, over real gRPC: spread, left out, taken in again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from seal.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from seal.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from seal.type.v1 import model_pb2

from controller.load import ServiceLoad
from controller.services import Services
from sealkit.errors import ModelMismatch, QueueFull, Unavailable
from sealkit.resources import ReplicaState
from sealkit.rpc import replicas
from sealkit.rpc.mapping import to_pb
from sealkit.rpc.replicas import Found, resolved
from sealkit.rpc.server import GrpcServer
from sealkit.rpc.services import EvaluatorClient, GeneratorClient, TrainerClient
from sealkit.rpc.settings import ServerSettings
from sealkit.types import (
    AdapterRef,
    EvaluationRequest,
    LoraConfig,
    ModelInfo,
    Occupancy,
    Optimisation,
    Policy,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
)

MODEL = ModelInfo(
    name="tiny", digest="ab" * 32, tokenizer_digest="cd" * 32, context_length=64,
    dtype="float32", device="cpu",
)  # fmt: skip
SPEC = TrainingSpec(
    examples=(TrainingExample(text="a fact"),),
    lora=LoraConfig(rank=1, alpha=1),
    optimisation=Optimisation(learning_rate=1e-3, epochs=1),
    seed=0,
)
POLICY = Policy(name="policies/p-0")
REQUEST = EvaluationRequest(policy=POLICY, sampling=Sampling(temperature=0.0, max_tokens=1), judge="exact")


class Replica(trainer_pb2_grpc.TrainerServiceServicer, evaluator_pb2_grpc.EvaluatorServiceServicer):
    """A trainer and an evaluator that count their calls and hold them until `opened`."""

    full_names = ("seal.trainer.v1.TrainerService", "seal.evaluator.v1.EvaluatorService")

    def __init__(self, model: ModelInfo = MODEL, occupancy: Occupancy | None = None) -> None:
        self.model = model
        self.occupancy = occupancy
        self.calls = self.cancelled = 0
        self.full = False
        self.opened, self.asked = asyncio.Event(), asyncio.Event()
        self.opened.set()
        self.asked.set()
        """Whether it says what it is."""

    def register(self, server: grpc.aio.Server) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(self, server)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def _came(self) -> None:
        if self.full:
            raise QueueFull("no room", retry_after=30)
        self.calls += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def TrainAdapter(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._came()
        result = TrainingResult(adapter=AdapterRef(digest="ef" * 32), cached=False, steps=1, first_loss=1, final_loss=1)
        yield trainer_pb2.TrainAdapterResponse(result=to_pb(result, trainer_pb2.TrainingResult))

    async def GetTrainerInfo(self, request: Any, context: Any) -> Any:
        await self.asked.wait()
        busy = to_pb(self.occupancy, model_pb2.Occupancy) if self.occupancy else None
        return trainer_pb2.GetTrainerInfoResponse(base_model=to_pb(self.model, model_pb2.BaseModel), occupancy=busy)

    async def Evaluate(self, request: Any, context: Any) -> Any:
        await self._came()
        return evaluator_pb2.EvaluateResponse()

    async def GetEvaluatorInfo(self, request: Any, context: Any) -> Any:
        return evaluator_pb2.GetEvaluatorInfoResponse(base_model=to_pb(self.model, model_pb2.BaseModel))


@asynccontextmanager
async def serving(*several: Replica, at: str = "127.0.0.1:0") -> AsyncIterator[list[GrpcServer]]:
    servers = [GrpcServer(one, ServerSettings(listen=at)) for one in several]
    for server in servers:
        await server.listen()
        await server.start()
    yield servers
    await asyncio.gather(*(server.stop(grace=0) for server in servers))


def target(servers: list[GrpcServer]) -> str:
    return ", ".join(server.address for server in servers)


async def train(client: TrainerClient) -> None:
    async for _ in client.train_adapter(POLICY, SPEC, owner="runs/r"):
        pass


async def started(several: list[Replica], calls: int) -> None:
    async with asyncio.timeout(30):
        while sum(one.calls for one in several) < calls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(replicas, "_RESOLVE_SECONDS", 0.02)


async def test_streams_are_spread_evenly_and_the_least_loaded_is_next() -> None:
    several = [Replica() for _ in range(3)]
    for one in several:
        one.opened.clear()
    async with serving(*several) as servers:
        client = TrainerClient(target(servers))
        calls = [asyncio.create_task(train(client)) for _ in range(12)]
        await started(several, 12)
        assert [one.calls for one in several] == [4, 4, 4]
        several[1].opened.set()  # four end there, so it is the least loaded
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.1)
        await asyncio.gather(*(train(client) for _ in range(3)))
        assert [one.calls for one in several] == [4, 7, 4]
        for one in several:
            one.opened.set()
        await asyncio.gather(*calls)
        await client.close()


async def test_a_dead_replica_is_left_out_at_once_and_taken_in_again() -> None:
    one, two = Replica(), Replica()
    client = None
    async with serving(one) as alive:
        async with serving(two) as dying:
            where = dying[0].address
            client = TrainerClient(f"{alive[0].address},{where}")
            await asyncio.gather(*(train(client) for _ in range(4)))
            assert (one.calls, two.calls) == (2, 2)
        await asyncio.gather(*(train(client) for _ in range(6)))  # none fails
        assert (one.calls, two.calls) == (8, 2)
        back = Replica()
        async with serving(back, at=where):
            async with asyncio.timeout(20):
                while not back.calls:
                    await train(client)
                    await asyncio.sleep(0.02)
            await client.close()


async def test_a_name_whose_addresses_change_is_followed_while_calls_go_on() -> None:
    several = [Replica() for _ in range(3)]
    async with serving(*several) as servers:
        addresses = [server.address for server in servers]
        known = Found(frozenset(addresses[:1]))

        async def resolve(_: str) -> Found:
            return known

        client = TrainerClient("trainer:50052")
        client._replicas.resolve = resolve
        several[0].opened.clear()
        under_way = asyncio.create_task(train(client))
        await started(several, 1)
        known = Found(frozenset(addresses[1:]))  # two came, the first one's address went
        async with asyncio.timeout(30):
            while not (several[1].calls and several[2].calls):
                await asyncio.sleep(0.05)
                if client._replicas.others({addresses[0]}):
                    await train(client)
        assert several[0].calls == 1
        several[0].opened.set()
        await under_way  # what was under way there came to its end
        known = Found(frozenset(), complete=False)  # the name server is away: nobody is dropped
        await asyncio.sleep(0.1)
        await train(client)
        await client.close()


async def test_a_full_replica_is_passed_over_and_the_worker_hears_where_all_are_full() -> None:
    heard = Counter[str]()
    one, two = Replica(), Replica()
    one.full = True
    async with serving(one, two) as servers:
        client = TrainerClient(target(servers), on_full=lambda: heard.update(["full"]))
        await asyncio.gather(*(train(client) for _ in range(4)))
        assert (two.calls, heard.total()) == (4, 0)
        two.full = True
        with pytest.raises(QueueFull) as raised:
            await train(client)
        assert (raised.value.retry_after, heard.total()) == (30, 1)
        await client.close()


async def test_a_replica_with_another_model_is_never_called() -> None:
    right, wrong = Replica(), Replica(MODEL.model_copy(update={"digest": "00" * 32}))
    async with serving(right) as first, serving(wrong) as second:
        client = EvaluatorClient(first[0].address)
        assert await client.info() == MODEL
        both = Found(frozenset([first[0].address, second[0].address]))

        async def resolve(_: str) -> Found:
            return both

        client._replicas.resolve = resolve
        await asyncio.sleep(0.2)
        for _ in range(4):
            await client.evaluate(REQUEST)
        assert (right.calls, wrong.calls) == (4, 0)
        with pytest.raises(ModelMismatch, match=second[0].address):
            await client.info()
        await client.close()


async def test_replicas_are_seen_with_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an admin sees addresses and errors; a replica that hangs keeps nobody waiting."""
    monkeypatch.setattr("controller.load._EVERY_SECONDS", 0.0)
    monkeypatch.setattr("controller.load._WAIT_SECONDS", 20.0)
    busy = Occupancy(running=3, capacity=16, waiting=2, step_tokens=900, step_tokens_limit=1024)
    right, wrong = Replica(occupancy=busy), Replica(MODEL.model_copy(update={"digest": "00" * 32}))
    async with serving(right) as first, serving(wrong) as second:
        generator, trainer = GeneratorClient("no-such-host.invalid:1"), TrainerClient(target(first))
        evaluator = EvaluatorClient(f"127.0.0.1:1,{target(first)}")
        await evaluator.info()
        evaluator._replicas.target += f",{target(second)}"
        evaluator._replicas._resolved = -float("inf")
        load = ServiceLoad(Services(generator, trainer, evaluator))
        found = {(one.service, one.address): one for one in await load.replicas(whole=True)}
        one = found["trainer", first[0].address]
        assert (one.state, one.base_model, one.occupancy, one.error) == (ReplicaState.SERVING, MODEL, busy, None)
        states = {where: one.state for where, one in found.items()}
        assert states == {
            ("generator", ""): ReplicaState.NOT_SERVING,
            ("trainer", first[0].address): ReplicaState.SERVING,
            ("evaluator", "127.0.0.1:1"): ReplicaState.NOT_SERVING,
            ("evaluator", first[0].address): ReplicaState.SERVING,
            ("evaluator", second[0].address): ReplicaState.OTHER_MODEL,
        }
        error = found["evaluator", second[0].address].error
        assert error is not None
        assert error.reason == "MODEL_MISMATCH"
        shown = await load.replicas(whole=False)
        assert {(one.address, one.error) for one in shown} == {("", None)}
        assert [one.state for one in shown] == [one.state for one in found.values()]
        right.asked.clear()
        monkeypatch.setattr("controller.load._WAIT_SECONDS", 0.0)
        before = [one.state for one in await load.replicas(whole=True)]
        assert before == [one.state for one in shown], "as they were"
        right.asked.set()
        await load.close()
        for client in (generator, trainer, evaluator):
            await client.close()


async def test_nobody_there_is_said_with_service_and_address() -> None:
    client = TrainerClient("127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(Unavailable, match=r"trainer at 127\.0\.0\.1:[12] does not answer"):
        await train(client)
    await client.close()
    nowhere = TrainerClient("no-such-host.invalid:50052")
    with pytest.raises(Unavailable, match=r"trainer at no-such-host\.invalid:50052"):
        await train(nowhere)
    await nowhere.close()


async def test_a_cancelled_call_is_cancelled_at_the_replica_within_a_second() -> None:
    one = Replica()
    one.opened.clear()
    async with serving(one) as servers:
        trainer, evaluator = TrainerClient(target(servers)), EvaluatorClient(target(servers))
        calls = [
            asyncio.create_task(train(trainer)),
            asyncio.create_task(evaluator.evaluate(REQUEST)),
        ]
        await started([one], 2)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(2):
            while one.cancelled < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.gather(*calls, return_exceptions=True)
        await trainer.close()
        await evaluator.close()


async def test_targets_are_resolved_to_addresses() -> None:
    assert (await resolved("127.0.0.1:1, 127.0.0.2:2")).addresses == {"127.0.0.1:1", "127.0.0.2:2"}
    assert (await resolved("unix:/tmp/x")).addresses == {"unix:/tmp/x"}
    assert (await resolved("[::1]:5")).addresses == {"[::1]:5"}
    assert not (await resolved("no-such-host.invalid:1,127.0.0.1:1")).complete
