"""Who gets in over TLS, and what a peer that means ill can hold up. The rest is in tests/contract/test_rpc_tls.py."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from seal.controller.v1 import controller_pb2 as pb
from seal.controller.v1 import controller_pb2_grpc
from seal.controller.v1 import resources_pb2 as res

from seal_cli import certs
from sealkit.errors import InvalidConfig
from sealkit.rpc.authority import Authority, CallersFile, Everyone, Peers
from sealkit.rpc.channel import open_channel
from sealkit.rpc.server import GrpcServer
from sealkit.rpc.settings import ServerSettings
from sealkit.rpc.tls import Identity
from tests.contract.fake_controller import FakeController

CALLERS = """
[[caller]]
name = "watcher"
role = "viewer"
tenant = "team-a"
certificate = "watcher"

[[caller]]
name = "nightly"
role = "operator"
tenant = "team-a"
certificate = "nightly"
"""
Stub = controller_pb2_grpc.ControllerServiceStub


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    certs.make(folder, [*certs.SERVICES, "watcher", "nightly"], hosts=[], days=30)
    signer = certs._load(folder / "ca.crt", folder / "ca.key")
    certs.write(_not_yet(signer), folder / "early", ca=signer.cert)
    certs.write(certs.issue(signer, "nightly", ["elsewhere.example"], days=30), folder / "elsewhere", ca=signer.cert)
    return folder


def _not_yet(signer: certs.Signed) -> certs.Signed:
    made = certs.issue(signer, "nightly", ["nightly", "localhost"], days=30)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.cert.subject)
        .issuer_name(made.cert.issuer)
        .public_key(made.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(tomorrow)
        .not_valid_after(tomorrow + timedelta(days=1))
    )
    return certs.Signed(builder.sign(signer.key, hashes.SHA256()), made.key)


def identity(pki: Path, name: str) -> Identity:
    return Identity(pki / "ca.crt", pki / name / "tls.crt", pki / name / "tls.key")


class Guarded(FakeController):
    """A controller whose watch streams never end by themselves."""

    def __init__(self, authority: Authority, word: str = "1") -> None:
        super().__init__()
        self.authority = authority
        self.word = word
        self.watching = self.said = 0

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        self.watching += 1
        try:
            while True:
                yield pb.WatchRunResponse(event=res.Event(cursor=self.word))
                self.said += 1
                await asyncio.sleep(0.05 if self.word == "1" else 0)
        finally:
            self.watching -= 1


@dataclass
class Served:
    server: GrpcServer
    service: Guarded

    @property
    def address(self) -> str:
        return self.server.address.replace("127.0.0.1", "localhost")


@asynccontextmanager
async def serving(
    pki: Path | None, authority: Authority, who: str = "controller", word: str = "1", **more: Any
) -> AsyncIterator[Served]:
    tls = {} if pki is None else {f"tls_{k}": str(pki / who / f) for k, f in
           (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))}  # fmt: skip
    service = Guarded(authority, word)
    server = GrpcServer(service, ServerSettings(listen="127.0.0.1:0", **tls, **more))
    await server.listen()
    await server.start()
    try:
        yield Served(server, service)
    finally:
        await server.stop(0)


@pytest.fixture
def callers(tmp_path: Path) -> CallersFile:
    (tmp_path / "callers.toml").write_text(CALLERS)
    return CallersFile(tmp_path / "callers.toml")


async def code_of(address: str, who: Identity | None, *, name: str = "") -> str:
    """The code of one ListPolicies."""
    async with open_channel(address, identity=who, server_name=name) as channel:
        try:
            await Stub(channel).ListPolicies(pb.ListPoliciesRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


# --- TLS --------------------------------------------------------------------------------------------------------------
async def test_a_certificate_that_is_not_valid_yet_does_not_get_in(pki: Path, callers: CallersFile) -> None:
    async with serving(pki, callers) as served:
        assert await code_of(served.address, identity(pki, "early")) == "UNAVAILABLE"
        assert await code_of(served.address, identity(pki, "nightly")) == "OK"


async def test_a_client_refuses_a_server_of_another_name(pki: Path) -> None:
    async with serving(pki, Everyone(), "elsewhere") as served:
        assert await code_of(served.address, identity(pki, "nightly")) == "UNAVAILABLE"
        assert await code_of(served.address, identity(pki, "nightly"), name="elsewhere.example") == "OK"


async def test_a_callers_certificate_cannot_pose_as_a_server(pki: Path) -> None:
    """Even where it is dialled by the very name in it."""
    async with serving(pki, Everyone(), "watcher") as served:
        assert await code_of(served.address, identity(pki, "nightly"), name="watcher") == "UNAVAILABLE"
        assert await code_of(served.address, identity(pki, "nightly")) == "UNAVAILABLE"


REFUSED = "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("who", "code"),
    [("trainer", REFUSED), ("generator", REFUSED), ("nightly", REFUSED), ("worker", "OK"), ("controller", "OK")],
)
async def test_a_model_service_answers_the_controller_alone(pki: Path, who: str, code: str) -> None:
    async with serving(pki, Peers(frozenset(ServerSettings().tls_peers)), "evaluator") as served:
        assert await code_of(served.address, identity(pki, who)) == code


async def test_a_service_is_no_caller_of_the_controller(pki: Path, callers: CallersFile) -> None:
    async with serving(pki, callers) as served:
        assert await code_of(served.address, identity(pki, "trainer")) == "UNAUTHENTICATED"


async def test_nothing_answers_without_a_certificate(pki: Path, callers: CallersFile) -> None:
    """Neither in the clear nor over TLS; neither health nor reflection."""
    async with serving(pki, callers) as served:
        for who in (None, Identity(pki / "ca.crt")):
            async with open_channel(served.address, identity=who) as channel:
                asked = reflection_pb2.ServerReflectionRequest(list_services="")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                    iter([asked]), timeout=3
                )
                with pytest.raises(grpc.aio.AioRpcError):
                    await reflected.read()


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
async def test_old_tls_is_refused(pki: Path, callers: CallersFile, version: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    async with serving(pki, callers) as served:

        async def shake(*words: str) -> str:
            own = ["-cert", pki / "nightly/tls.crt", "-key", pki / "nightly/tls.key"]
            asked = [openssl, "s_client", "-connect", served.address, "-alpn", "h2", "-CAfile", pki / "ca.crt", *own]
            done = await asyncio.to_thread(
                subprocess.run, [*asked, *words], input="", capture_output=True, encoding="utf-8", errors="replace"
            )
            return done.stdout + done.stderr

        assert "Verify return code: 0" in await shake("-tls1_2")
        said = await shake(f"-{version}", "-cipher", "DEFAULT@SECLEVEL=0")
    assert "Verify return code: 0 (ok)" not in said or "Cipher is (NONE)" in said
    assert "Cipher is (NONE)" in said or "no protocols available" in said or "alert" in said


async def test_a_caller_struck_off_the_list_is_out_with_the_next_message(pki: Path, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(CALLERS)
    async with serving(pki, CallersFile(file)) as served:
        async with open_channel(served.address, identity=identity(pki, "nightly")) as channel:
            watch = aiter(Stub(channel).WatchRun(pb.WatchRunRequest(name="runs/x"), timeout=20))
            await anext(watch)
            file.write_text(CALLERS.replace('certificate = "nightly"', 'certificate = "somebody-else"'))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                [_ async for _ in watch]
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await code_of(served.address, identity(pki, "nightly")) == "UNAUTHENTICATED"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.1.2.3:50050"])
async def test_no_port_is_open_to_other_machines_without_tls(listen: str) -> None:
    with pytest.raises(InvalidConfig, match="tls_ca"):
        await GrpcServer(Guarded(Everyone()), ServerSettings(listen=listen)).listen()


async def test_a_closed_network_may_do_without_tls_where_it_says_so() -> None:
    server = GrpcServer(Guarded(Everyone()), ServerSettings(listen="0.0.0.0:0", plaintext=True))
    await server.listen()
    await server.stop(0)


# --- peers that hold things up ----------------------------------------------------------------------------------------
async def test_a_peer_with_a_thousand_watch_streams_does_not_stop_others(pki: Path, callers: CallersFile) -> None:
    async with serving(pki, callers, max_calls=100) as served, AsyncExitStack() as stack:
        channels = []
        for _ in range(10):
            channel = open_channel(served.address, identity=identity(pki, "watcher"))
            channels.append(await stack.enter_async_context(channel))
        watches = [
            Stub(channel).WatchRun(pb.WatchRunRequest(name="runs/x")) for channel in channels for _ in range(100)
        ]
        first = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
        refused = [error for error in first if isinstance(error, grpc.aio.AioRpcError)]
        assert len(refused) == 900
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "calls in progress" in str(refused[0].details())
        assert served.service.watching == 100
        began = time.monotonic()
        assert await code_of(served.address, identity(pki, "nightly")) == "OK"
        assert time.monotonic() - began < 5
        assert await code_of(served.address, identity(pki, "watcher")) == "RESOURCE_EXHAUSTED"
        for watch in watches:
            watch.cancel()
        while served.service.watching:  # noqa: ASYNC110 - the fake only counts
            await asyncio.sleep(0.02)
        assert await code_of(served.address, identity(pki, "watcher")) == "OK", "what has ended counts no more"


@pytest.fixture
def silent(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_peers_that_connect_and_say_nothing_do_not_stop_others(
    pki: Path, callers: CallersFile, silent: list[socket.socket], says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealkit.rpc.channel._HANDSHAKE_MS", 500)
    async with serving(pki, callers) as served:
        host, _, port = served.server.address.rpartition(":")
        for _ in range(200):
            silent.append(socket.create_connection((host, int(port)), timeout=5))
            silent[-1].sendall(says)
        assert await code_of(served.address, identity(pki, "nightly")) == "OK"
        silent[0].settimeout(10)
        with suppress(ConnectionError):  # reset is as good as closed
            assert await asyncio.to_thread(_drained, silent[0]) is None, "it is let go after the handshake's time"


def _drained(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


async def test_a_reader_that_never_reads_fills_no_memory(pki: Path, callers: CallersFile) -> None:
    """HTTP/2's flow control stops the server, which waits at its `yield`."""
    async with serving(pki, callers, word="x" * 100_000) as served:
        async with open_channel(served.address, identity=identity(pki, "nightly")) as channel:
            watch = Stub(channel).WatchRun(pb.WatchRunRequest(name="runs/x"))
            await watch.read()
            said = -1
            while said != served.service.said:
                said = served.service.said
                await asyncio.sleep(0.2)
            assert said * 100_000 < 64 << 20
            assert await code_of(served.address, identity(pki, "watcher")) == "OK"
            watch.cancel()
