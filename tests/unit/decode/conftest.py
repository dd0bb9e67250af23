"""A tiny model, and a backend of four rows on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("plain") / "model", context=128)


@pytest.fixture
async def backend(model: Path, tmp_path: Path) -> AsyncIterator[TransformersBackend]:
    settings = ModelSettings(model=str(model), device="cpu")
    backend = TransformersBackend(settings, AdapterStore(tmp_path.as_uri()), max_rows=4)
    await backend.start()
    yield backend
    await backend.close()
