"""One vLLM for all tests here; they are skipped, and say so, where none is set up (`make test-vllm` does that)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sealkit.backends.base import Backend
from sealkit.backends.factory import BackendSettings, make_backend
from tests.integration.vllm.engine import MODEL, NAME, VENV, VllmProcess, say
from trainer_svc.build import Built, build
from trainer_svc.settings import TrainerSettings


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    if not (VENV / "bin/vllm").exists() or not MODEL.is_dir():
        pytest.skip(f"needs vLLM in {VENV} and the model in {MODEL}: run `make test-vllm`")
    process = VllmProcess(tmp_path_factory.mktemp("vllm") / "vllm.log")
    process.start()
    try:
        say(f"vLLM started in {process.wait():.0f} s")
        yield process
    finally:
        process.kill()


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def trainer(store: str) -> Iterator[Built]:
    built = build(TrainerSettings(model=str(MODEL), store_url=store, device="cpu", max_jobs=4))
    yield built
    built.engine.close()


def settings(store: str, url: str, folder: Path, **more: object) -> BackendSettings:
    return BackendSettings(
        model=str(MODEL), store_url=store, backend="vllm", endpoint_url=f"{url}/v1", endpoint_model=NAME,
        vllm_folder=str(folder), vllm_slots=3, **more,
    )  # fmt: skip


@pytest.fixture
async def served(vllm: VllmProcess, store: str, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = make_backend(settings(store, vllm.url, tmp_path / "lora"))
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture
async def local(store: str) -> AsyncIterator[Backend]:
    backend = make_backend(BackendSettings(model=str(MODEL), store_url=store, device="cpu", threads=1))
    await backend.start()
    yield backend
    await backend.close()
