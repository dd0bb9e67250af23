"""The stack as it stands: locked, reached by its port alone and by those who may."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from seal_cli import certs
from sealkit.client import SealClient
from sealkit.errors import PermissionDenied, Unauthenticated, Unavailable, UnknownRun
from sealkit.rpc.tls import Identity
from tests.e2e.compose.harness import EVERY, ROOT, UID, Harness
from tests.e2e.compose.outside import Outside, recipe
from tests.e2e.readme import blocks


async def test_a_run_from_outside_comes_to_its_end(harness: Harness, outside: Outside) -> None:
    watched = outside.start(contexts=3)
    trials = await outside.nothing_lost(watched, again=True)
    assert {trial.state for trial in trials} >= {"succeeded"}


def test_containers_are_locked_and_publish_one_port_of_those_that_are_called(harness: Harness) -> None:
    running = harness.compose("ps", "--services").split()
    assert set(EVERY) < set(running)
    for service in running:
        for container in harness.containers(service):
            found = harness.inspect(container)
            host = found["HostConfig"]
            assert found["Config"]["User"].split(":")[0] not in {"", "0", "root"}, service
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert "no-new-privileges:true" in host["SecurityOpt"], service
            published = {port for port, places in found["NetworkSettings"]["Ports"].items() if places}
            ports = {"controller": {"50050/tcp"}, "gateway": {"8000/tcp"}, "grafana": {"3000/tcp"}}
            assert published == ports.get(service, set()), service


def test_nobody_else_is_let_in(harness: Harness, tmp_path: Path) -> None:
    ca = harness.secrets / "tls/ca.crt"
    certs.make(tmp_path, ["operator"], hosts=[], days=1)
    foreign = Identity(ca, tmp_path / "operator/tls.crt", tmp_path / "operator/tls.key")
    harness.sh(".venv/bin/seal", "certs", "make", str(harness.secrets / "tls"), "--name", "stranger")
    for identity in (None, Identity(ca), foreign):
        with SealClient(harness.address, identity=identity, timeout=5) as seal, pytest.raises(Unavailable):
            list(seal.list_runs())
    with SealClient(harness.address, identity=harness.identity("stranger")) as seal, pytest.raises(Unauthenticated):
        list(seal.list_runs())


def test_callers_are_known_as_soon_as_the_list_changes_and_tenants_see_their_own(harness: Harness) -> None:
    harness.sh(".venv/bin/seal", "certs", "make", str(harness.secrets / "tls"), "--name", "team-a", "--name", "team-b")
    file = harness.secrets / "callers/callers.toml"
    lines = [
        f'\n[[caller]]\nname = "{team}"\nrole = "operator"\ntenant = "{team}"\ncertificate = "{team}"\n'
        for team in ("team-a", "team-b")
    ]
    changed = file.with_name("new")
    changed.write_text(file.read_text() + "".join(lines))
    changed.chmod(0o644)
    changed.replace(file)

    config, records = recipe(contexts=100, rounds=1)  # so many that it cannot have ended before it is cancelled
    with (
        SealClient(harness.address, identity=harness.identity("team-a")) as ours,
        SealClient(harness.address, identity=harness.identity("team-b")) as theirs,
    ):
        run = ours.create_run(config, records)
        assert run.name in [found.name for found in ours.list_runs()]
        assert run.name not in [found.name for found in theirs.list_runs()]
        for forbidden in (theirs.get_run, theirs.cancel_run, theirs.report):
            with pytest.raises((UnknownRun, PermissionDenied)):
                forbidden(run.name)
        assert ours.cancel_run(run.name).state == "cancelled"


def test_no_port_but_the_published_one_answers_from_outside(harness: Harness) -> None:
    for port in (50051, 50052, 50053, 6379, 5432, 9090, 9093, 9100):
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass


def test_containers_run_as_a_user_that_no_image_knows(harness: Harness) -> None:
    who = harness.compose("exec", "-T", "trainer", "python", "-c", "import os; print(os.getuid())").strip()
    assert who == harness.env["SEAL_UID"]
    assert who == UID or harness.env["SEAL_UID"] != UID


def test_the_adapter_store_is_checked_where_it_is_mounted(harness: Harness) -> None:
    """The command of docs/operations.md, with the secrets of this stack."""
    (command,) = (
        block
        for block in blocks("", (ROOT / "docs/operations.md").read_text(encoding="utf-8"))
        if "seal adapters gc" in block
    )
    assert "adapters" in harness.sh("bash", "-c", command.replace("./secrets", str(harness.secrets)))


def test_model_services_answer_the_controller_alone(harness: Harness) -> None:
    """Whoever has a certificate of the stack but not the controller's role gets nothing from a model service."""
    script = (
        "from sealkit.rpc.channel import open_sync_channel as o\n"
        "import os; from sealkit.rpc.tls import identity_of\n"
        "import grpc; from seal.trainer.v1 import trainer_pb2 as p, trainer_pb2_grpc as g\n"
        "i = identity_of(*(os.environ[f'SEAL_TLS_{x}'] for x in ('CA', 'CERT', 'KEY')))\n"
        "stub = g.TrainerServiceStub(o('trainer:50052', identity=i))\n"
        "try: stub.GetTrainerInfo(p.GetTrainerInfoRequest(), timeout=9)\n"
        "except grpc.RpcError as e: print(e.code().name)\n"
        "else: print('ANSWERED')\n"
    )
    said = {s: harness.compose("exec", "-T", s, "python", "-c", script).strip() for s in ("generator", "worker")}
    assert said == {"generator": "PERMISSION_DENIED", "worker": "ANSWERED"}
