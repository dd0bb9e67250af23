"""Traces over real gRPC: a client's call, the server's, and what both say in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from seal.controller.v1 import controller_pb2 as pb
from seal.controller.v1 import controller_pb2_grpc

from sealkit.client import AsyncSealClient
from sealkit.errors import UnknownRun
from sealkit.observability import tracing
from sealkit.observability.start import TracingSettings, start_tracing
from sealkit.rpc.channel import open_channel
from sealkit.rpc.server import GrpcServer
from tests.contract.fake_controller import FakeController
from tests.otlp import Receiver, receiving

SERVICE = "seal.controller.v1.ControllerService"
PLACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def running() -> Iterator[Iterator[Receiver]]:
    """`next` turns tracing on and gives the receiver; a second `next` sends what was traced."""

    def made() -> Iterator[Receiver]:
        with receiving() as receiver:
            stop = start_tracing("test", TracingSettings(endpoint=receiver.url))
            try:
                yield receiver
            finally:
                stop()

    generator = made()
    yield generator
    generator.close()


async def test_a_trace_begins_at_what_changes_something_and_goes_through_to_the_server(
    server: GrpcServer, controller: FakeController, running: Iterator[Receiver]
) -> None:
    receiver = next(running)
    controller.release.set()
    await server.start()
    async with AsyncSealClient(server.address) as client:
        await client.get_run("runs/x")
        await client.cancel_run("runs/x")
        with tracing.span("a program"):
            await client.get_run("runs/x")
    next(running, None)
    assert receiver.above(receiver.one(f"{SERVICE}/CancelRun")) == ["controller/CancelRun"]
    # Reads are told of where they are part of something, and nowhere else.
    assert receiver.above(receiver.one(f"{SERVICE}/GetRun")) == ["controller/GetRun", "a program"]
    assert receiver.one(f"{SERVICE}/GetRun").attributes["rpc.method"] == "GetRun"


async def test_a_refused_call_is_told_by_its_reason(server: GrpcServer, running: Iterator[Receiver]) -> None:
    receiver = next(running)
    await server.start()
    async with AsyncSealClient(server.address) as client:
        with tracing.span("a program"), pytest.raises(UnknownRun):
            await client.get_run("runs/unknown")
    next(running, None)
    for name in (f"{SERVICE}/GetRun", "controller/GetRun"):
        assert receiver.one(name).failed
        assert receiver.one(name).attributes["error.type"] == "UNKNOWN_RUN"


@pytest.mark.parametrize("sent", ["", "nonsense", PLACE + "-more", " ".join([PLACE] * 100), PLACE])
async def test_a_caller_of_another_kind_sends_its_place_or_anything_else(
    server: GrpcServer, controller: FakeController, running: Iterator[Receiver], sent: str
) -> None:
    receiver = next(running)
    controller.release.set()
    await server.start()
    async with open_channel(server.address) as channel:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        request = pb.CancelRunRequest(name="runs/x", request_id="r")
        await stub.CancelRun(request, metadata=(("traceparent", sent),))
    next(running, None)
    span = receiver.one(f"{SERVICE}/CancelRun")
    assert span.parent == (PLACE[36:52] if sent.startswith(PLACE) else "")
    assert span.links == ()
