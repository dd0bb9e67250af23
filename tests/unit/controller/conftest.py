"""The system under test, fresh for each test."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from tests.unit.controller.controller_system import System

POLLS = {
    "controller.trial.dispatcher._STREAMS_SECONDS": 0.05,
    "controller.trial.rerun._POLL_SECONDS": 0.05,
    "controller.trial.worker._CHECK_SECONDS": 0.1,
}


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    made = System(tmp_path)
    yield made
    await made.database.close()


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Renders no tracebacks: it takes longer than the tests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls more often: the fake services answer at once."""
    for constant, seconds in POLLS.items():
        monkeypatch.setattr(constant, seconds)
