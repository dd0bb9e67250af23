"""TLS both ways, callers and roles: who gets in, and that nobody else does."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from typer.testing import CliRunner

from seal_cli import certs
from seal_cli.main import app
from sealkit.callers import CALLER, Caller, Role
from sealkit.client import AsyncSealClient
from sealkit.errors import InvalidConfig, PermissionDenied, SealError, Unauthenticated, Unavailable
from sealkit.rpc.authority import CallersFile, Peers
from sealkit.rpc.replicas import Replica, Replicas, Said
from sealkit.rpc.server import GrpcServer
from sealkit.rpc.settings import ServerSettings
from sealkit.rpc.tls import Identity, identity_of
from sealkit.types import ModelInfo
from tests.contract.fake_controller import FakeController

MODEL = ModelInfo(
    name="m",
    digest="d",
    tokenizer_digest="t",
    context_length=8,
    dtype="float32",
    device="cpu",
)
TOKEN = "a-token-nobody-guesses"
CALLERS = f"""
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

[[caller]]
name = "root"
role = "admin"
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""


@pytest.fixture(autouse=True)
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal stays one."""
    monkeypatch.setattr("sealkit.client.base.BaseClient._RETRY_PAUSES", ())


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server, two callers, and everything that must not get in."""
    folder = tmp_path_factory.mktemp("pki")
    certs.make(folder, ["controller", "watcher", "nightly", "stranger"], hosts=[], days=30)
    signer = certs._load(folder / "ca.crt", folder / "ca.key")
    certs.write(certs.issue(signer, "nightly", ["nightly"], days=-1), folder / "expired", ca=signer.cert)
    other = certs.authority("another stack")
    certs.write(certs.issue(other, "nightly", ["nightly"], days=30), folder / "foreign", ca=signer.cert)
    return folder


def identity(pki: Path, name: str) -> Identity:
    found = identity_of(*(str(pki / name / file) for file in ("ca.crt", "tls.crt", "tls.key")))
    assert found is not None
    return found


class Guarded(FakeController):
    """The fake controller behind the callers file; remembers who called."""

    full_names = ("seal.controller.v1.ControllerService",)

    def __init__(self, authority: CallersFile | Peers) -> None:
        super().__init__()
        self.authority = authority
        self.seen: list[Caller] = []

    def register(self, server: grpc.aio.Server) -> None:
        from seal.controller.v1 import controller_pb2_grpc

        controller_pb2_grpc.add_ControllerServiceServicer_to_server(self, server)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ListPolicies(self, request: object, context: object) -> object:
        self.seen.append(CALLER.get())
        return await super().ListPolicies(request, context)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(
    pki: Path, *, callers: str = CALLERS, certificates: bool = True
) -> AsyncIterator[tuple[str, Guarded]]:
    file = pki / "callers.toml"
    file.write_text(callers)
    service = Guarded(CallersFile(file))
    place = pki / "controller"
    settings = ServerSettings(
        listen="127.0.0.1:0",
        tls_ca=str(place / "ca.crt"),
        tls_cert=str(place / "tls.crt"),
        tls_key=str(place / "tls.key"),
        tls_client_certificates=certificates,
    )
    server = GrpcServer(service, settings)
    await server.listen()
    await server.start()
    try:
        yield server.address.replace("127.0.0.1", "localhost"), service
    finally:
        await server.stop(0)


async def policies(address: str, who: Identity | None, token: str = "") -> None:
    async with AsyncSealClient(address, identity=who, token=token, timeout=5) as client:
        _ = [policy async for policy in client.list_policies()]


async def test_a_listed_certificate_gets_in_as_who_it_is(pki: Path) -> None:
    async with serving(pki) as (address, service):
        await policies(address, identity(pki, "watcher"))
    assert service.seen == [Caller("watcher", Role.VIEWER, "team-a")]


async def test_the_controller_takes_up_its_own_new_certificate(tmp_path: Path) -> None:
    names = ["generator", "controller"]
    certs.make(tmp_path, names, hosts=[], days=30)
    own = identity(tmp_path, "controller")
    asked: list[Replica] = []

    async def ask(replica: Replica) -> Said:
        asked.append(replica)
        return Said(MODEL)

    replicas = Replicas("generator", "127.0.0.1:1", lambda channel: channel, ask, identity=own)
    await replicas.model()
    certs.make(tmp_path, names, hosts=[], days=30, renew=True)
    replicas._resolved = -float("inf")
    await replicas.model()
    await replicas.close()
    assert len({id(replica.channel) for replica in asked}) == 2


@pytest.mark.parametrize("who", ["expired", "foreign"])
async def test_a_certificate_that_is_not_good_does_not_get_in(pki: Path, who: str) -> None:
    async with serving(pki) as (address, service):
        with pytest.raises(Unavailable):
            await policies(address, identity(pki, who))
    assert service.seen == []


@pytest.mark.parametrize("who", [lambda pki: None, lambda pki: Identity(pki / "ca.crt")])
async def test_no_certificate_does_not_get_in(pki: Path, who: Callable[[Path], Identity | None]) -> None:
    async with serving(pki) as (address, service):
        with pytest.raises(Unavailable):
            await policies(address, who(pki))
    assert service.seen == []


async def test_a_certificate_that_nobody_listed_is_unknown(pki: Path) -> None:
    async with serving(pki) as (address, service):
        with pytest.raises(Unauthenticated, match="stranger"):
            await policies(address, identity(pki, "stranger"))
    assert service.seen == []


async def test_a_client_refuses_a_server_of_another_authority(pki: Path, tmp_path: Path) -> None:
    certs.make(tmp_path, ["nightly"], hosts=[], days=30)
    async with serving(pki) as (address, _):
        with pytest.raises(Unavailable):
            await policies(address, identity(tmp_path, "nightly"))


async def test_a_viewer_reads_and_changes_nothing(pki: Path) -> None:
    async with serving(pki) as (address, _):
        async with AsyncSealClient(address, identity=identity(pki, "watcher"), timeout=5) as client:
            with pytest.raises(PermissionDenied, match="viewer"):
                await client.cancel_run("runs/a")


async def test_a_token_gets_in_and_a_wrong_one_does_not(pki: Path) -> None:
    async with serving(pki, certificates=False) as (address, service):
        await policies(address, Identity(pki / "ca.crt"), TOKEN)
        with pytest.raises(Unauthenticated):
            await policies(address, Identity(pki / "ca.crt"), "guess")
        with pytest.raises(Unauthenticated):
            await policies(address, Identity(pki / "ca.crt"))
    assert service.seen == [Caller("root", Role.ADMIN)]


async def test_a_token_is_never_sent_in_the_clear() -> None:
    with pytest.raises(InvalidConfig, match="TLS"):
        await policies("localhost:1", None, TOKEN)


async def test_health_needs_a_certificate_and_no_listing(pki: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from sealkit.rpc.channel import open_channel

    async with serving(pki) as (address, _):
        async with open_channel(address, identity=identity(pki, "stranger")) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_replaced_certificate_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    certs.make(tmp_path, ["controller", "watcher"], hosts=[], days=30)
    async with serving(tmp_path) as (address, service):
        await policies(address, identity(tmp_path, "watcher"))
        for file in ("ca.crt", "ca.key"):
            (tmp_path / file).unlink()
        certs.make(tmp_path, ["controller", "watcher"], hosts=[], days=30, renew=True)  # another authority, even
        await policies(address, identity(tmp_path, "watcher"))
    assert len(service.seen) == 2


async def test_callers_are_read_again_and_a_bad_file_changes_nothing(pki: Path) -> None:
    async with serving(pki) as (address, _):
        (pki / "callers.toml").write_text("nonsense")
        await policies(address, identity(pki, "watcher"))
        (pki / "callers.toml").write_text(CALLERS.replace('certificate = "watcher"', 'certificate = "someone"'))
        with pytest.raises(Unauthenticated):
            await policies(address, identity(pki, "watcher"))


def test_model_services_let_in_the_controller_alone() -> None:
    peers = Peers(frozenset({"controller", "worker"}))
    assert peers.identify(["worker"], "").name == "worker"
    with pytest.raises(PermissionDenied):
        peers.identify(["operator"], "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "caller"),
        ('[[caller]]\nname="a"\nrole="viewer"\ntenant="t"', "certificate"),
        ('[[caller]]\nname="a"\nrole="viewer"\ncertificate="a"', "tenant"),
        ('[[caller]]\nname="a"\nrole="king"\ncertificate="a"', "role"),
        ('[[caller]]\nname="a"\nrole="admin"\ntoken_sha256="abc"', "token_sha256"),
    ],
)
def test_a_bad_callers_file_is_refused_with_its_fault(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "callers.toml").write_text(text)
    with pytest.raises(InvalidConfig, match=fault):
        CallersFile(tmp_path / "callers.toml")


def test_half_of_the_tls_files_is_refused(pki: Path) -> None:
    with pytest.raises(InvalidConfig):
        identity_of("", str(pki / "controller/tls.crt"), "")
    with pytest.raises(SealError, match="no PEM"):
        Identity(pki / "ca.crt", pki / "ca.crt", pki / "ca.crt").channel_credentials()


def test_a_certificate_whose_text_has_the_letters_of_a_key_is_not_one(pki: Path, tmp_path: Path) -> None:
    key = tmp_path / "tls.key"
    key.write_bytes((pki / "ca.crt").read_bytes().replace(b"\n", b"\nKEY", 1))
    with pytest.raises(SealError, match="no PEM key"):
        Identity(pki / "ca.crt", pki / "controller/tls.crt", key).channel_credentials()


def test_certificates_are_made_once_and_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    assert certs.make(tmp_path, ["a", "b"], hosts=["gpu-node"], days=90) == ["a", "b"]
    assert certs.make(tmp_path, ["a", "b"], hosts=[], days=90) == []
    assert certs.make(tmp_path, ["a"], hosts=[], days=90, renew=True) == ["a"]
    for key in (tmp_path / "ca.key", tmp_path / "a/tls.key"):
        assert key.stat().st_mode & 0o077 == 0
    assert Identity(tmp_path / "ca.crt", tmp_path / "a/tls.crt", tmp_path / "a/tls.key").expiry() > 0


def test_a_renewed_certificate_is_for_the_hosts_of_the_old_one(tmp_path: Path) -> None:
    certs.make(tmp_path, ["controller"], hosts=["gpu1.example", "10.1.2.3"], days=90)
    old = (tmp_path / "controller/tls.crt").read_bytes()
    certs.make(tmp_path, ["controller"], hosts=["gpu2.example"], days=90, renew=True)
    new = x509.load_pem_x509_certificate((tmp_path / "controller/tls.crt").read_bytes())
    named = new.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert old != (tmp_path / "controller/tls.crt").read_bytes()
    assert set(named.get_values_for_type(x509.DNSName)) == {"controller", "localhost", "gpu1.example", "gpu2.example"}
    assert {str(address) for address in named.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.1.2.3"}


def test_a_host_that_callers_dial_is_in_no_other_certificate(tmp_path: Path) -> None:
    def make(*words: str) -> str:
        return CliRunner().invoke(app, ["certs", "make", str(tmp_path / "tls"), *words]).output

    assert "worker" in make()
    assert make("--host", "gpu1.example").startswith("issued for controller, gateway in")  # they were not for that name
    assert "are valid" in " ".join(make("--host", "gpu1.example").split())
    for_host = {
        path.parent.name
        for path in (tmp_path / "tls").glob("*/tls.crt")
        if "gpu1.example"
        in x509.load_pem_x509_certificate(path.read_bytes())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)
    }
    assert for_host == {"controller", "gateway"}


async def test_a_certificate_that_cannot_be_read_for_a_moment_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    certs.make(tmp_path, ["trainer", "worker"], hosts=[], days=90)
    folder = tmp_path / "worker"
    identity = Identity(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")

    async def held(replica: Replica) -> Said:
        return Said(MODEL)

    replicas = Replicas("trainer", "127.0.0.1:1", lambda channel: channel, held, identity=identity)
    await replicas.model()
    away = (folder / "tls.key").rename(folder / "away")
    replicas._resolved = -float("inf")  # the next look is due
    assert (await replicas.model()).digest == "d"
    away.rename(folder / "tls.key")
    await replicas.close()


async def test_tls_on_one_side_only_says_which_settings(pki: Path) -> None:
    """gRPC itself says only `Socket closed`, or OpenSSL's WRONG_VERSION_NUMBER."""
    async with serving(pki) as (secured, _), plain() as open_to_all:
        for address, caller, said in (
            (secured, None, r"closes the connection at once: if it uses TLS.* set SEAL_TLS_CA"),
            (secured, Identity(pki / "controller" / "ca.crt"), r"wants a client certificate, set SEAL_TLS_CA"),
            (open_to_all, identity(pki, "nightly"), r"does not use TLS.* unset SEAL_TLS_CA"),
            (secured, identity(pki, "foreign"), r"closes the connection|trust each other"),
        ):
            with pytest.raises(Unavailable, match=said):
                async with AsyncSealClient(address.replace("localhost", "127.0.0.1"), identity=caller) as client:
                    await client.get_run("runs/a")


@asynccontextmanager
async def plain() -> AsyncIterator[str]:
    server = GrpcServer(FakeController(), ServerSettings(listen="127.0.0.1:0"))
    await server.listen()
    await server.start()
    yield server.address
    await server.stop(0)
