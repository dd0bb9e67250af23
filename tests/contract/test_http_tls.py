"""The HTTP service over TLS: a caller's token is its own at the controller, and the service has no rights itself."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from seal_cli import certs
from sealkit.errors import InvalidConfig
from sealkit.rpc.tls import Identity
from tests.contract.http_harness import TLS, Served, served
from tests.contract.tenants_harness import furnish
from tests.records import new_record

TOKENS = {"reader": "viewer", "writer": "operator"}
QUESTION = [{"role": "user", "content": "Which river?"}]
CALLERS = "".join(
    f'[[caller]]\nname = "{name}"\nrole = "{role}"\ntenant = "team-a"\n'
    f'token_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
    for name, role in TOKENS.items()
)
GATEWAY_TOO = '[[caller]]\nname = "gateway"\nrole = "admin"\ncertificate = "gateway"\n'
"""A mistake that an operator could make."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    certs.make(folder, ["controller", "gateway"], hosts=[], days=30)
    return folder


@pytest.fixture(autouse=True)
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealkit.client.base.BaseClient._RETRY_PAUSES", ())


@pytest_asyncio.fixture
async def service(tmp_path: Path, pki: Path) -> AsyncIterator[Served]:
    database = new_record(tmp_path)
    await furnish(database, "team-a", alias="notes")
    await furnish(database, "team-b", request_id="b", alias="theirs")
    await database.close()
    async with served(tmp_path, pki=pki, callers=GATEWAY_TOO + CALLERS) as made:
        yield made


def trust(pki: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pki / "ca.crt"))


async def test_a_token_is_its_callers_and_reaches_only_its_tenant(service: Served, pki: Path) -> None:
    for token in TOKENS:
        async with service.openai(token, verify=trust(pki)) as client:
            assert [model.id async for model in await client.models.list()] == ["base", "notes"]
            got = await client.chat.completions.create(model="notes", messages=QUESTION)
            assert got.choices[0].message.content == "base says Which river?"
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="theirs", messages=QUESTION)
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.list(extra_headers={"seal-tenant": "team-b"})


async def test_without_a_known_token_nobody_asks_not_even_as_the_service(service: Served, pki: Path) -> None:
    async with service.openai("unknown", verify=trust(pki)) as client:
        for call in (client.models.list, lambda: client.models.retrieve("base")):
            with pytest.raises(openai.AuthenticationError):
                await call()
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="base", messages=QUESTION)
    async with service.http(verify=trust(pki)) as http:
        for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer"}):
            got = await http.get("/v1/models", headers=headers)
            assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer")
        assert (await http.get("/healthz")).status_code == 200
    assert service.services.calls["answer"] == 0


async def test_a_person_sees_its_tenant_s_runs_and_no_other(service: Served, pki: Path) -> None:
    headers = {"origin": service.url, "accept": "text/html"}
    async with service.http(verify=trust(pki), headers=headers) as http:
        assert (await http.get("/live/")).status_code == 401
        got = await http.post("/live/session", data={"token": "reader"})
        assert (got.status_code, got.headers["location"]) == (303, "/live/")
        shown = (await http.get("/live/")).text
        runs = set(re.findall(r'data-run="runs/([\w-]+)"', shown))
        assert len(runs) == 1
        assert "secret of team-a" in shown
        assert "team-b" not in shown
        (own,) = runs
        assert (await http.get(f"/live/runs/{own}/findings")).status_code == 200
        assert (await http.get("/live/aliases/notes")).status_code == 200
        theirs = own.replace("team-a", "team-b")
        for path in (f"/live/runs/{theirs}", f"/live/events?run={theirs}", "/live/aliases/theirs"):
            assert (await http.get(path)).status_code == 404, path
        asked = {"model": "aliases/notes", "messages": QUESTION, "stream": True}
        assert "says Which river?" in "".join(
            re.findall(r'"content":"([^"]*)"', (await http.post("/live/answers", json=asked)).text)
        )
        assert (await http.get("/v1/models")).status_code == 401, "the API takes no cookie"


async def test_the_end_of_the_process_ends_a_stream_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.page.stream._BEAT_SECONDS", 0.05)
    database = new_record(tmp_path)
    run = (await furnish(database, "")).run.removeprefix("runs/")
    await database.close()
    async with served(tmp_path, grace_seconds=100) as made, made.http() as http:
        async with http.stream("GET", f"/live/events?run={run}") as got:
            parts = got.aiter_text()
            while "event: run" not in await anext(parts):
                pass  # a comment: the controller takes its time
            await made.gateway.stop()
            assert "failed" not in "".join([part async for part in parts])


async def test_a_replaced_certificate_serves_new_connections(service: Served, pki: Path, tmp_path: Path) -> None:
    signer = certs._load(pki / "ca.crt", pki / "ca.key")
    fresh = certs.issue(signer, "gateway", ["localhost"], days=30)
    before = await served_certificate(service, pki)
    certs.write(fresh, tmp_path / "gateway", ca=signer.cert)
    service.gateway.replace_certificate(Identity(*(tmp_path / "gateway" / file for file in TLS)))
    after = await served_certificate(service, pki)
    assert before != after == fresh.cert.serial_number
    async with service.openai("reader", verify=trust(pki)) as client:
        assert (await client.completions.create(model="base", prompt="a")).choices


async def served_certificate(service: Served, pki: Path) -> int:
    import asyncio

    port = int(service.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("localhost", port, ssl=trust(pki))
    shown = writer.get_extra_info("peercert")
    writer.close()
    return int(shown["serialNumber"], 16)


async def test_other_machines_need_tls() -> None:
    from gateway.server import Gateway
    from gateway.settings import GatewaySettings

    with pytest.raises(InvalidConfig, match="reachable from other machines"):
        Gateway(GatewaySettings(listen="0.0.0.0:0"))
