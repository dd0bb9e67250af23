"""A real gRPC server with a fake controller behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sealkit.rpc.server import GrpcServer, ServerSettings
from tests.contract.fake_controller import FakeController


@pytest.fixture
async def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def server(controller: FakeController) -> AsyncIterator[GrpcServer]:
    """Listening, not started."""
    made = GrpcServer(controller, ServerSettings(listen="127.0.0.1:0"))
    await made.listen()
    yield made
    await made.stop(0)
