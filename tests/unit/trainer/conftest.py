"""Tiny models, made once, and engines that are closed at the end."""

from __future__ import annotations

import pytest

from sealkit.testing.tiny import make_tiny_model
from tests.unit.trainer.jobs import PROBE, packed
from trainer_svc.engine import Engine


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {
        arch: make_tiny_model(root / arch, arch, hidden=32, layers=2, vocab=320, context=64)
        for arch in ("llama", "qwen2")
    }


@pytest.fixture(scope="session")
def models(folders):
    """One packed model for each architecture, float64."""
    return {arch: packed(folder) for arch, folder in folders.items()}


@pytest.fixture
def make_engine():
    engines = []

    def make(model, **options) -> Engine:
        engine = Engine(model, PROBE, **options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
