"""The HTTP service in front of a controller's API over a record, with evaluators that tests script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
from openai import AsyncOpenAI

from controller.app import App
from controller.services import Services
from controller.settings import ControllerSettings
from gateway.server import Gateway
from gateway.settings import GatewaySettings
from sealkit.rpc.server import GrpcServer
from tests.unit.controller.controller_fakes import DOMAIN, FakeServices

TLS = ("ca.crt", "tls.crt", "tls.key")


@dataclass
class Script:
    """What the evaluators do. The piece `held` of an answer is announced by `reached` and waits for `released`; a piece
    or a call in `faults` raises."""

    held: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    faults: dict[str, Exception] = field(default_factory=dict)

    async def before(self, call: str, what: str) -> None:
        if (call == "piece" and what in self.faults) or call in self.faults:
            raise self.faults.get(call) or self.faults[what]
        if call == "piece" and what == self.held:
            self.reached.set()
            await self.released.wait()


@dataclass
class Served:
    """The running service: its URL, and what is behind it."""

    url: str
    gateway: Gateway
    services: FakeServices
    script: Script
    controller: str

    def http(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20, **options)

    def openai(self, token: str = "any", **options: Any) -> AsyncOpenAI:
        http = httpx.AsyncClient(trust_env=False, verify=options.pop("verify", True))
        return AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=token, max_retries=0, timeout=20, http_client=http, **options
        )


@asynccontextmanager
async def served(folder: Path, *, pki: Path | None = None, callers: str = "", **settings: Any) -> AsyncIterator[Served]:
    """Both processes' services in this one, over the record in `folder`; with TLS if there is a `pki`."""
    script = Script()
    services = FakeServices(script.before)
    of_controller: dict[str, Any] = {"listen": "127.0.0.1:0", "domain_plugins": (DOMAIN,)}
    of_gateway: dict[str, Any] = {"listen": "127.0.0.1:0", "idle_seconds": 10, "grace_seconds": 1, **settings}
    if pki is not None:
        (folder / "callers.toml").write_text(callers)
        of_controller |= {"callers_file": str(folder / "callers.toml")}
        for options, name in ((of_controller, "controller"), (of_gateway, "gateway")):
            files = (str(pki / name / file) for file in TLS)
            options |= dict(zip(("tls_ca", "tls_cert", "tls_key"), files, strict=True))
    told = ControllerSettings(database_url=f"sqlite:///{folder}/record.db", **of_controller)
    app = App(
        told, worker_id="w", api=True, worker=False, stop=lambda: None, services=Services(services, services, services)
    )
    server = GrpcServer(app, told)
    await server.listen()
    await server.start()
    gateway = Gateway(GatewaySettings(controller=server.address.replace("127.0.0.1", "localhost"), **of_gateway))
    await gateway.start()
    host = gateway.address.replace("127.0.0.1", "localhost")
    try:
        yield Served(f"{'https' if pki else 'http'}://{host}", gateway, services, script, server.address)
    finally:
        script.released.set()
        await gateway.stop()
        await server.stop(0)
