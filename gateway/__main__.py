"""`python -m gateway`: the HTTP service as a process."""

from __future__ import annotations

from gateway.server import serve
from gateway.settings import GatewaySettings
from sealkit.rpc.process import Program, run_program


def _prepare() -> Program:
    settings = GatewaySettings()
    return Program("gateway", settings, lambda: serve(settings))


if __name__ == "__main__":
    raise SystemExit(run_program(_prepare))
