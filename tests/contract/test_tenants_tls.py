"""Two tenants with certificates of their own before the real API: what each sees, may have, and leaves in the log."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from prometheus_client import REGISTRY

from controller.app import App
from controller.settings import ControllerSettings
from seal_cli import certs
from sealkit.client import AsyncSealClient
from sealkit.errors import PermissionDenied, QuotaExceeded, Unauthenticated, UnknownRun, UnknownTenant
from sealkit.resources import RunState
from sealkit.rpc.server import GrpcServer
from sealkit.rpc.tls import Identity, identity_of
from tests.unit.controller.controller_fakes import DOMAIN, records, tiny_config

CALLERS = {"a-nightly": "team-a", "b-nightly": "team-b", "a-watcher": "team-a", "root": ""}
ROLES = {"a-watcher": "viewer", "root": "admin"}


def listed(*names: str, quotas: str = "") -> str:
    """A callers file of these callers."""
    entries = [
        f'[[caller]]\nname = "{name}"\nrole = "{ROLES.get(name, "operator")}"\ncertificate = "{name}"\n'
        + (f'tenant = "{CALLERS[name]}"\n' if CALLERS[name] else "")
        for name in names or CALLERS
    ]
    return "\n".join(entries) + quotas


class Harness:
    """The API behind TLS."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._written = 0

    def client(self, name: str, tenant: str = "") -> AsyncSealClient:
        return AsyncSealClient(self._address, identity=self._identity(name), timeout=10, tenant=tenant)

    def write(self, callers: str) -> None:
        """The callers file, with a time of its own however coarse the clock is."""
        self._written += 1
        (self._folder / "callers.toml").write_text(callers)
        os.utime(self._folder / "callers.toml", (self._written, self._written))

    def _identity(self, name: str) -> Identity | None:
        return identity_of(*(str(self._folder / name / file) for file in ("ca.crt", "tls.crt", "tls.key")))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Harness]:
    settings = ControllerSettings(
        listen="127.0.0.1:0",
        database_url=f"sqlite:///{folder}/record.db",
        domain_plugins=(DOMAIN,),
        callers_file=str(folder / "callers.toml"),
        tls_ca=str(folder / "controller/ca.crt"),
        tls_cert=str(folder / "controller/tls.crt"),
        tls_key=str(folder / "controller/tls.key"),
    )
    server = GrpcServer(App(settings, worker_id="w", api=True, worker=False, stop=lambda: None), settings)
    await server.listen()
    await server.start()
    try:
        yield Harness(folder, server.address.replace("127.0.0.1", "localhost"))
    finally:
        await server.stop(0)


@pytest.fixture(autouse=True)
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal stays one."""
    monkeypatch.setattr("sealkit.client.base.BaseClient._RETRY_PAUSES", ())


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    certs.make(tmp_path, ["controller", "stranger", *CALLERS], hosts=[], days=30)
    (tmp_path / "callers.toml").write_text(listed())
    async with serving(tmp_path) as made:
        yield made


async def test_each_tenant_sees_what_is_its_own(harness: Harness) -> None:
    async with harness.client("a-nightly") as a, harness.client("b-nightly") as b, harness.client("root") as root:
        mine = await a.create_run(tiny_config(), records(), request_id="same")
        other = await b.create_run(tiny_config(), records(), request_id="same")
        assert (mine.tenant, other.tenant) == ("team-a", "team-b")
        assert [run.name async for run in a.list_runs()] == [mine.name]
        with pytest.raises(UnknownRun):
            await b.cancel_run(mine.name)
        assert {run.name async for run in root.list_runs()} == {mine.name, other.name}
    async with harness.client("root", "team-b") as acting:
        assert [run.name async for run in acting.list_runs()] == [other.name]


async def test_nobody_but_an_admin_acts_for_another_tenant(harness: Harness) -> None:
    async with harness.client("a-nightly", "team-a") as own:
        assert (await own.whoami()).tenant == "team-a"
    async with harness.client("a-nightly", "team-b") as other:
        with pytest.raises(PermissionDenied, match="belongs to team-a"):
            await other.whoami()
    async with harness.client("root", "team-z") as nowhere:
        with pytest.raises(UnknownTenant, match="team-z"):
            await nowhere.whoami()


async def test_quotas_of_the_file_hold_and_change_with_it(harness: Harness) -> None:
    harness.write(listed(quotas='\n[[tenant]]\nname = "team-a"\nruns_at_once = 1\n'))
    async with harness.client("a-nightly") as a, harness.client("b-nightly") as b:
        first = await a.create_run(tiny_config(), records())
        with pytest.raises(QuotaExceeded) as caught:
            await a.create_run(tiny_config(), records())
        assert caught.value.fields == (("runs_at_once", "1 of 1 are active"),)  # through QuotaFailure
        await b.create_run(tiny_config(), records())
        harness.write(listed(quotas='\n[[tenant]]\nname = "team-a"\nruns_at_once = 2\ntrials_in_run = 30\n'))
        await a.create_run(tiny_config(), records())
        me = await a.whoami()
        assert (me.role, me.quotas.runs_at_once, me.used.runs_at_once) == ("operator", 2, 2)
        assert (me.quotas.trials_in_run, me.used.trials_in_run) == (30, 24)
        harness.write("nonsense")  # the old list stays in force
        with pytest.raises(QuotaExceeded):
            await a.create_run(tiny_config(), records())
        assert (await a.cancel_run(first.name)).state is RunState.CANCELLED


async def test_who_is_struck_off_the_list_is_out_and_so_is_its_open_stream(harness: Harness) -> None:
    async with harness.client("a-nightly") as a, harness.client("root") as root:
        run = await a.create_run(tiny_config(), records())
        watching = a.watch_run(run.name)
        assert (await anext(watching)).cursor == "1"
        harness.write(listed("root", "a-watcher"))
        with pytest.raises(Unauthenticated):
            await a.get_run(run.name)
        await root.cancel_run(run.name)
        with pytest.raises(Unauthenticated):
            await anext(watching)


async def test_the_audit_log_has_changes_and_refusals_and_is_not_for_viewers(harness: Harness) -> None:
    async with (
        harness.client("a-nightly") as a,
        harness.client("b-nightly") as b,
        harness.client("a-watcher") as viewer,
    ):
        run = await a.create_run(tiny_config(), records(), request_id="q1")
        with pytest.raises(PermissionDenied, match="viewer"):
            await viewer.cancel_run(run.name)
        with pytest.raises(UnknownRun):
            await b.cancel_run(run.name)
        with pytest.raises(PermissionDenied, match="ListAuditEntries"):
            _ = [entry async for entry in viewer.list_audit_entries()]
        of_a = [(e.caller, e.role, e.action, e.outcome) async for e in a.list_audit_entries(resource=run.name)]
        assert of_a == [
            ("a-watcher", "viewer", "CancelRun", "PERMISSION_DENIED"),
            ("a-nightly", "operator", "CreateRun", "OK"),
        ]
        of_b = [(e.caller, e.resource, e.outcome) async for e in b.list_audit_entries()]
        assert of_b == [("b-nightly", run.name, "UNKNOWN_RUN")]
    async with harness.client("root") as root:
        assert len([entry async for entry in root.list_audit_entries()]) == 3


async def test_who_is_refused_at_the_door_is_in_the_log_with_its_address_and_counted(harness: Harness) -> None:
    labels = {"reason": "UNAUTHENTICATED"}
    before = REGISTRY.get_sample_value("seal_callers_refused_total", labels) or 0.0
    with structlog.testing.capture_logs() as said:
        async with harness.client("stranger") as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.cancel_run("runs/a")
    refused = next(line for line in said if line["event"] == "caller refused")
    assert refused["peer"].startswith("ipv")
    assert refused["method"].endswith("/CancelRun")
    assert refused["reason"] == "UNAUTHENTICATED"
    assert REGISTRY.get_sample_value("seal_callers_refused_total", labels) == before + 1
    async with harness.client("root") as root:  # strangers fill no table
        assert [entry async for entry in root.list_audit_entries()] == []
