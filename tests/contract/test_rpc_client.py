"""The two Python clients against a real gRPC server: the same answers, the same errors, nothing missed or twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from seal.controller.v1 import controller_pb2 as pb2
from seal.controller.v1 import resources_pb2 as res

from sealkit import limits
from sealkit.client import AsyncSealClient, SealClient
from sealkit.config import RunConfig
from sealkit.errors import (
    DeadlineExceeded,
    InvalidInput,
    LimitExceeded,
    RunNotResumable,
    SealError,
    Unavailable,
    UnknownRun,
)
from sealkit.resources import Event, Run, RunState
from sealkit.rpc import controller_calls
from sealkit.rpc.server import GrpcServer, ServerSettings
from sealkit.rpc.services import TrainerClient
from sealkit.rpc.struct import struct_from_pb
from tests.contract.fake_controller import FakeController

RECORDS = [{"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]}]


class Client:
    """Either client behind one face: what is tested is tested for both."""

    def __init__(self, kind: str, address: str, **options: Any) -> None:
        self.real: Any = AsyncSealClient(address, **options) if kind == "async" else SealClient(address, **options)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.real, SealClient):
            return await asyncio.to_thread(getattr(self.real, method), *args, **kwargs)
        return await getattr(self.real, method)(*args, **kwargs)

    async def all(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        if isinstance(self.real, SealClient):
            return await asyncio.to_thread(lambda: list(getattr(self.real, method)(*args, **kwargs)))
        return [item async for item in getattr(self.real, method)(*args, **kwargs)]

    async def close(self) -> None:
        if isinstance(self.real, SealClient):
            self.real.close()
        else:
            await self.real.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealkit.client.base.BaseClient._RETRY_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(controller_calls.Watch, "longest_pause", 0.01)


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, server: GrpcServer) -> AsyncIterator[Client]:
    await server.start()
    made = Client(request.param, server.address)
    yield made
    await made.close()


async def test_create_run_sends_the_whole_config(client: Client, controller: FakeController) -> None:
    run: Run = await client.call("create_run", RunConfig(rounds=3), RECORDS, display_name="mine")
    assert (run.name, run.state) == ("runs/r0", RunState.QUEUED)
    assert RunConfig.model_validate(run.config) == RunConfig(rounds=3)
    sent = controller.requests[0]
    assert sent.display_name == "mine"
    assert len(sent.request_id) == 32
    assert sent.records[0]["title"] == "t"


async def test_a_dataset_over_the_size_of_a_message_is_sent_in_parts(
    client: Client, controller: FakeController
) -> None:
    """Seventy records of a MiB: more than a server takes in one message (64 MiB)."""
    records = [{"title": str(number), "text": "x" * (1 << 20)} for number in range(70)]
    run: Run = await client.call("create_run", {"rounds": 2}, records, [{"id": "q"}], display_name="big")
    assert run.config == {"rounds": 2}
    (sent,) = controller.requests
    assert [record["title"] for record in sent.records] == [record["title"] for record in records]
    assert (sent.display_name, len(sent.request_id), len(sent.retention)) == ("big", 32, 1)
    assert len(controller.parts) > 10
    assert max(controller.parts) <= 4 << 20


async def test_documents_are_sent_as_bytes_by_name_on_an_alias(client: Client, controller: FakeController) -> None:
    run: Run = await client.call("learn", "aliases/notes", {"a.pdf": b"%PDF", "b.txt": b"text"}, request_id="mine")
    again = await client.call("learn", "notes", {"a.pdf": b"%PDF", "b.txt": b"text"}, request_id="mine")
    assert run == again
    sent = controller.requests[0]
    assert {one.name: one.content for one in sent.documents} == {"a.pdf": b"%PDF", "b.txt": b"text"}
    config = RunConfig.model_validate(run.config)
    assert (config.task, config.gate.alias, config.adapt.commit) == ("adapt", "notes", "route")
    mine = [{"id": "a", "prompt": "Say a."}]
    await client.call("learn", "notes", {"a.pdf": b"%PDF"}, anchors=mine)
    assert [struct_from_pb(one) for one in controller.requests[-1].anchors] == mine
    await client.call("forget", "notes", "a.pdf", config=RunConfig(seed=3), anchors=mine)
    assert [struct_from_pb(one) for one in controller.requests[-1].anchors] == mine
    forgets = RunConfig.model_validate(struct_from_pb(controller.requests[-1].config))
    assert (forgets.seed, forgets.adapt.forget, len(controller.requests[-1].documents)) == (3, ("a.pdf",), 0)
    with pytest.raises(LimitExceeded, match=r"big\.txt is larger than the limit of 64 MiB"):
        await client.call("learn", "notes", {"big.txt": bytes(limits.DOCUMENT_BYTES + 1)})


async def test_create_run_takes_a_mapping_and_a_request_id(client: Client, controller: FakeController) -> None:
    first = await client.call("create_run", {"rounds": 1}, RECORDS, request_id="mine")
    again = await client.call("create_run", {"rounds": 1}, RECORDS, request_id="mine")
    other = await client.call("create_run", {"rounds": 1}, RECORDS)
    assert first == again != other


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_create_run_is_sent_again_with_the_same_id(kind: str, controller: FakeController) -> None:
    create, failures = controller.CreateRun, [Unavailable("not now"), Unavailable("nor now")]

    async def flaky(request: Any, context: Any) -> Any:
        await create(request, context)
        if failures:
            raise failures.pop()
        return await create(request, context)

    controller.CreateRun = flaky  # type: ignore[method-assign]
    server = GrpcServer(controller, ServerSettings())
    await server.listen()
    await server.start()
    client = Client(kind, server.address)
    await client.call("create_run", {}, RECORDS)
    assert failures == []
    assert len({r.request_id for r in controller.requests}) == 1
    assert len(controller.runs) == 1
    await client.close()
    await server.stop(0)


async def test_errors_are_ours(client: Client) -> None:
    with pytest.raises(UnknownRun, match="seal runs") as caught:
        await client.call("get_run", "runs/unknown")
    assert caught.value.metadata == {"name": "runs/unknown"}
    with pytest.raises(RunNotResumable):
        await client.call("resume_run", "runs/x")
    with pytest.raises(InvalidInput) as invalid:
        await client.call("get_run", "nonsense")
    assert [path for path, _ in invalid.value.fields] == ["name"]
    with pytest.raises(SealError, match="internal error"):
        await client.call("get_policy", "policies/x")


async def test_lists_walk_the_pages(client: Client) -> None:
    trials = await client.all("list_trials", "runs/x")
    assert [t.name.rpartition("/")[2] for t in trials] == ["0", "1", "2"]
    assert [p.name for p in await client.all("list_policies")] == ["policies/base"]
    assert await client.all("list_runs") == []


async def test_report(client: Client) -> None:
    assert (await client.call("report", "runs/x")).verdict == "too early to say"


async def test_watch_goes_on_from_the_cursor_after_each_break(client: Client, controller: FakeController) -> None:
    controller.happens(res.RUN_STATE_QUEUED, res.RUN_STATE_RUNNING, res.RUN_STATE_FAILED)
    controller.happens(res.RUN_STATE_QUEUED, res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
    controller.breaks = [(1, False), (0, True), (1, True), (2, False), (0, False)]
    events: list[Event] = await client.all("watch_run", "runs/x")
    assert [e.cursor for e in events] == ["1", "2", "3", "4", "5", "6"]
    assert [r.cursor for r in controller.requests] == ["", "1", "1", "2", "4", "4"]


async def test_watch_leaves_out_old_events_only_before_its_first(client: Client, controller: FakeController) -> None:
    controller.happens(res.RUN_STATE_QUEUED, res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
    controller.breaks = [(0, False), (1, False)]
    await client.all("watch_run", "runs/x", latest=30)
    assert [(r.cursor, r.latest) for r in controller.requests] == [("", 30), ("", 30), ("1", 0)]


async def test_watch_of_an_ended_run_ends(client: Client, controller: FakeController) -> None:
    controller.happens(res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
    assert await client.all("watch_run", "runs/x", "2") == []
    assert (await client.call("wait", "runs/x")).state is RunState.SUCCEEDED


async def test_an_end_between_a_closed_stream_and_the_question_is_not_missed(
    client: Client, controller: FakeController
) -> None:
    """The stream closes early, and by the time the client asks, the run has ended: its last events still come."""
    controller.happens(res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
    controller.breaks = [(1, True)]
    assert [e.cursor for e in await client.all("watch_run", "runs/x")] == ["1", "2"]


async def test_watch_of_an_unknown_run_says_so(client: Client, controller: FakeController) -> None:
    controller.breaks = [(0, True)]
    with pytest.raises(UnknownRun):
        await client.all("watch_run", "runs/unknown")


async def test_a_watcher_is_told_once_of_each_long_loss_and_why(
    client: Client, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_calls.Watch, "told_after", 0.0)
    controller.happens(res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
    controller.breaks = [(0, False), (0, False), (1, False), (0, False)]
    told: list[str] = []
    found = await client.all("watch_run", "runs/x", on_wait=lambda error: told.append(error.message))
    assert len(found) == 2
    assert told == ["the stream broke"] * 2


async def test_watch_outlives_the_controller(controller: FakeController) -> None:
    """The server goes away in the middle of a stream and comes back on the same port."""
    controller.happens(res.RUN_STATE_RUNNING)
    server = GrpcServer(controller, ServerSettings())
    await server.listen()
    await server.start()
    seen = []
    async with AsyncSealClient(server.address) as client:
        events = client.watch_run("runs/x")
        seen.append(await anext(events))
        await server.stop(0)
        controller.happens(res.RUN_STATE_SUCCEEDED)
        again = GrpcServer(controller, ServerSettings(listen=server.address))
        await again.listen()
        await again.start()
        seen += [event async for event in events]
        await again.stop(0)
    assert [e.cursor for e in seen] == ["1", "2"]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_nobody_there_is_said_with_the_address(kind: str) -> None:
    client = Client(kind, "127.0.0.1:1", reconnect_seconds=0)
    with pytest.raises(Unavailable, match=r"controller at 127\.0\.0\.1:1 does not answer; is it running\?"):
        await client.call("get_run", "runs/x")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        await client.all("watch_run", "runs/x")
    await client.close()


async def test_model_services_are_named_too() -> None:
    client = TrainerClient("127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"trainer at 127\.0\.0\.1:1"):
        await client.trainer_info()
    await client.close()


async def test_a_trainer_that_does_not_say_in_time_who_it_is_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut cable looks like this; trials wait for who is away and fail where their work takes too long."""
    client = TrainerClient("127.0.0.1:1")

    async def late(*_: Any) -> None:
        raise DeadlineExceeded("trainer at 127.0.0.1:1 did not answer within the deadline")

    monkeypatch.setattr(client, "_call", late)
    with pytest.raises(Unavailable, match="within the deadline"):
        await client.trainer_info()
    await client.close()


async def test_the_sync_client_leaves_no_thread(server: GrpcServer, controller: FakeController) -> None:
    await server.start()
    controller.happens(res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)

    def use() -> None:
        before = set(threading.enumerate())
        with SealClient(server.address) as client:
            next(iter(client.watch_run("runs/x")))
            client.wait("runs/x")
        for thread in set(threading.enumerate()) - before:
            thread.join(5)
        assert set(threading.enumerate()) <= before

    await asyncio.to_thread(use)


def test_requests_carry_ids_of_their_own() -> None:
    ids = {controller_calls.cancel_run("runs/x").request.request_id for _ in range(3)}
    assert len(ids) == 3
    assert isinstance(controller_calls.get_run("runs/x").request, pb2.GetRunRequest)
