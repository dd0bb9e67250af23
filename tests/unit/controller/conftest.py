"""The system under test, fresh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.unit.controller.controller_system import System


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    made = System(tmp_path)
    await made.database.start()
    yield made
    await made.database.close()
