"""The bootstrap that every service shares, over real gRPC."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import REGISTRY
from seal.controller.v1 import controller_pb2 as pb2
from seal.controller.v1 import controller_pb2_grpc

from sealkit.errors import InvalidModel, Unavailable
from sealkit.rpc import correlation
from sealkit.rpc.channel import open_channel
from sealkit.rpc.server import GrpcServer, ServerSettings, ServiceDied, run, serve
from tests.contract.fake_controller import FULL_NAME, FakeController

ROOT = Path(__file__).parents[2]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(server.address) as made:
        yield made


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return controller_pb2_grpc.ControllerServiceStub(channel)


async def _health(channel: grpc.aio.Channel) -> set[int]:
    stub = health_pb2_grpc.HealthStub(channel)
    answers = [await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("", FULL_NAME)]
    return {answer.status for answer in answers}


async def _refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_health_follows_the_service(server: GrpcServer, channel: grpc.aio.Channel) -> None:
    assert await _health(channel) == {NOT_SERVING}
    await server.start()
    assert await _health(channel) == {SERVING}


async def test_no_call_is_let_in_before_the_start(server: GrpcServer, stub: Any) -> None:
    error = await _refused(stub.GetRun(pb2.GetRunRequest(name="runs/x")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "still starting" in error.details()
    await server.start()
    await stub.GetRun(pb2.GetRunRequest(name="runs/x"))


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        assert {s.name for s in answer.list_services_response.service} == {
            FULL_NAME,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


async def test_an_error_is_a_rich_status(server: GrpcServer, stub: Any) -> None:
    await server.start()
    error = await _refused(stub.GetRun(pb2.GetRunRequest(name="runs/unknown")))
    info = error_details_pb2.ErrorInfo()
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert rpc_status.from_call(error).details[0].Unpack(info)  # type: ignore[arg-type]
    assert (info.reason, info.domain, dict(info.metadata)) == ("UNKNOWN_RUN", "seal", {"name": "runs/unknown"})


@pytest.mark.parametrize(
    ("method", "request_", "paths"),
    [
        (
            "CreateRun",
            pb2.CreateRunRequest(display_name="x" * 300),
            ["config", "display_name", "request_id"],
        ),
        ("GetRun", pb2.GetRunRequest(name="RUNS/1"), ["name"]),
        ("ListTrials", pb2.ListTrialsRequest(parent="x", page_size=-1), ["page_size", "parent"]),
        ("WatchRun", pb2.WatchRunRequest(name="runs/x", cursor="c" * 65), ["cursor"]),
    ],
)
async def test_every_faulty_field_is_named(
    server: GrpcServer, stub: Any, controller: FakeController, method: str, request_: Any, paths: list[str]
) -> None:
    await server.start()
    call = getattr(stub, method)(request_)
    error = await _refused(call.read() if method == "WatchRun" else call)
    bad = error_details_pb2.BadRequest()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert any(d.Unpack(bad) for d in rpc_status.from_call(error).details)  # type: ignore[arg-type]
    assert sorted(v.field for v in bad.field_violations) == paths
    assert controller.requests == []


@pytest.mark.parametrize("name", ["policies/x", "policies/panic"])
async def test_a_fault_of_ours_tells_nothing_but_its_id(server: GrpcServer, stub: Any, name: str) -> None:
    await server.start()
    with structlog.testing.capture_logs() as logs:
        error = await _refused(stub.GetPolicy(pb2.GetPolicyRequest(name=name), timeout=10))
    logged = next(line for line in logs if line["log_level"] == "error")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "password" not in error.details()
    assert logged["error_id"] in error.details()
    assert logged["exc_info"]


async def test_a_cancelled_call_cancels_its_handler(server: GrpcServer, stub: Any, controller: FakeController) -> None:
    await server.start()
    call = stub.CancelRun(pb2.CancelRunRequest(name="runs/x"))
    await controller.entered.wait()
    call.cancel()
    await asyncio.wait_for(controller.cancelled.wait(), 5)


async def test_stopping_drains_calls_under_way(
    server: GrpcServer, channel: grpc.aio.Channel, stub: Any, controller: FakeController
) -> None:
    await server.start()
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=FULL_NAME))
    assert (await watch.read()).status == SERVING
    call = asyncio.ensure_future(stub.CancelRun(pb2.CancelRunRequest(name="runs/x")))
    await controller.entered.wait()
    stopping = asyncio.ensure_future(server.stop(30))
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()
    assert not controller.closed
    controller.release.set()
    assert (await call).run.name == "runs/x"
    await asyncio.wait_for(stopping, 5)
    assert controller.closed


async def test_calls_that_only_wait_end_when_the_drain_begins(controller: FakeController) -> None:
    class Draining(FakeController):
        async def drain(self) -> None:
            self.release.set()

    service = Draining()
    server = GrpcServer(service, ServerSettings(grace_seconds=60))
    await server.listen()
    await server.start()
    async with open_channel(server.address) as channel:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        call = asyncio.ensure_future(stub.CancelRun(pb2.CancelRunRequest(name="runs/x")))
        await service.entered.wait()
        await asyncio.wait_for(server.stop(), 5)
        assert (await call).run.name == "runs/x"


async def test_ids_travel_from_log_to_log(server: GrpcServer, stub: Any) -> None:
    await server.start()
    with structlog.contextvars.bound_contextvars(run="runs/a", trial="runs/a/rounds/0/trials/t", other="stays"):
        metadata = correlation.to_metadata()
    assert dict(metadata) == {"seal-run": "runs/a", "seal-trial": "runs/a/rounds/0/trials/t"}
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await _refused(stub.GetPolicy(pb2.GetPolicyRequest(name="policies/x"), metadata=metadata))
    logged = next(line for line in logs if line["log_level"] == "error")
    assert (logged["run"], logged["trial"]) == ("runs/a", "runs/a/rounds/0/trials/t")


async def test_calls_are_counted_by_code(server: GrpcServer, stub: Any) -> None:
    def count(code: str) -> float:
        labels = {"method": f"/{FULL_NAME}/GetRun", "code": code}
        return REGISTRY.get_sample_value("seal_grpc_requests_total", labels) or 0

    await server.start()
    before = count("OK"), count("NOT_FOUND")
    await stub.GetRun(pb2.GetRunRequest(name="runs/x"))
    await _refused(stub.GetRun(pb2.GetRunRequest(name="runs/unknown")))
    await server.stop(10)  # a call is counted when its caller already has the answer
    assert (count("OK"), count("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def test_sigterm_ends_serve_and_closes_the_service(controller: FakeController) -> None:
    serving = asyncio.ensure_future(serve(controller, ServerSettings()))
    await asyncio.wait_for(controller.started.wait(), 5)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 5)
    assert controller.closed


async def test_sigterm_during_the_start_ends_it(controller: FakeController) -> None:
    loading = asyncio.Event()

    async def load() -> None:
        loading.set()
        await asyncio.Event().wait()

    controller.start = load  # type: ignore[method-assign]
    serving = asyncio.ensure_future(serve(controller, ServerSettings()))
    await asyncio.wait_for(loading.wait(), 5)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 5)
    assert not controller.closed


@pytest.mark.parametrize("which", ["listen", "metrics_listen"])
async def test_a_port_in_use_is_named(controller: FakeController, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"{address}: Address already in use"):
            await serve(controller, ServerSettings.model_validate({which: address}))


def test_a_failed_start_is_one_line_and_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeController):
        async def start(self) -> None:
            raise InvalidModel("/models/x holds no config.json; name a Hugging Face folder")

    assert run(lambda: (Broken(), ServerSettings(log_level="ERROR"))) == 1
    line = "controller cannot start: /models/x holds no config.json; name a Hugging Face folder\n"
    assert capfd.readouterr().err == line


class Working(FakeController):
    """A service whose own work ends when the test says so, with an error where there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.ends, self.error = asyncio.Event(), error

    async def work(self) -> None:
        await self.ends.wait()
        if self.error is not None:
            raise self.error


async def test_health_is_not_serving_once_the_work_of_a_service_has_died(unused_port: int) -> None:
    service = Working(ZeroDivisionError("a bug"))
    address = f"127.0.0.1:{unused_port}"
    serving = asyncio.ensure_future(serve(service, ServerSettings(listen=address, grace_seconds=60)))
    async with open_channel(address) as channel:
        await asyncio.wait_for(service.started.wait(), 10)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        while (await watch.read()).status != SERVING:
            pass
        call = asyncio.ensure_future(
            controller_pb2_grpc.ControllerServiceStub(channel).CancelRun(pb2.CancelRunRequest(name="runs/x"))
        )
        await asyncio.wait_for(service.entered.wait(), 10)
        service.ends.set()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        service.release.set()
        await call
        with pytest.raises(ServiceDied, match="ZeroDivisionError: a bug"):
            await asyncio.wait_for(serving, 10)
    assert service.closed


def test_work_that_dies_is_one_line_and_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    def make() -> tuple[Working, ServerSettings]:
        service = Working(ZeroDivisionError("a bug"))
        service.ends.set()
        return service, ServerSettings(log_level="ERROR")

    assert run(make) == 1
    assert capfd.readouterr().err == "controller died: ZeroDivisionError: a bug\n"


def test_work_is_stopped_with_the_service() -> None:
    class Stopped(Working):
        async def work(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            await super().work()

    assert run(lambda: (Stopped(), ServerSettings(log_level="ERROR"))) == 0


def test_bad_settings_are_named_by_variable_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ProbeSettings(ServerSettings, env_prefix="SEAL_PROBE_"):
        pass

    monkeypatch.setenv("SEAL_PROBE_LISTEN", "nowhere")
    monkeypatch.setenv("SEAL_PROBE_MAX_MESSAGE_MIB", "0")
    assert run(lambda: (FakeController(), ProbeSettings())) == 2
    err = capfd.readouterr().err
    assert "SEAL_PROBE_LISTEN: " in err
    assert "'nowhere' is not host:port" in err
    assert "SEAL_PROBE_MAX_MESSAGE_MIB: " in err
    assert err.count("\n") == 1


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = """
import asyncio, os, signal
from sealkit.rpc.server import ServerSettings, run
from tests.contract.fake_controller import FakeController
class Stuck(FakeController):
    async def start(self):
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    async def close(self):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(3600)
run(lambda: (Stuck(), ServerSettings()))
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, check=False, cwd=ROOT)
    assert ended.returncode == 128 + signal.SIGTERM
