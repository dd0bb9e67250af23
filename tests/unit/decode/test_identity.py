"""An adapter answers only after proof that it is the one asked for."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from evaluator_svc.service import EvaluatorService
from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.lora import CONFIG_FILE, WEIGHTS_FILE, LoraWeights, dump_adapter, load_adapter
from sealkit.backends.models import ModelSettings
from sealkit.backends.probe import PROBE_TEXT, probe_of
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import AdapterCorrupt, AdapterMismatch, AdapterNotFound
from sealkit.rpc.server import GrpcServer, ServerSettings
from sealkit.rpc.services import EvaluatorClient
from sealkit.store import MANIFEST, AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.types import AdapterRef, EvaluationRequest, Policy, Prompt, Query, Sampling, digest_of

ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]},
    "two": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]},
    "policy": {"r": 3, "lora_alpha": 6, "target_modules": ["v_proj", "up_proj"]},
    "over": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"]},
}
ONE, TWO, POLICY, OVER = (AdapterRef(digest=digest_of(name)) for name in ADAPTERS)
GREEDY = Sampling(temperature=0, max_tokens=4)
TOWN = Prompt(user="the town")


@pytest.fixture(scope="module")
def peft(model: Path) -> PeftReference:
    return PeftReference(model, ADAPTERS, std=0.05)


@pytest.fixture
def store(peft: PeftReference, tmp_path: Path) -> AdapterStore:
    """Adapters with the probes that PEFT says, `over` over `policy`."""
    store = AdapterStore(tmp_path.as_uri())
    for name in ADAPTERS:
        under = ["policy"] if name == "over" else []
        note: dict[str, Any] = {"probe": probe_of(peft.logits(PROBE_TEXT, [*under, name])[-1])}
        store.put(digest_of(name), peft.files(name), note | ({"policy_digest": POLICY.digest} if under else {}))
    return store


@pytest.fixture(params=["float32", "bfloat16"])
async def backend(request: pytest.FixtureRequest, peft: PeftReference, store: AdapterStore) -> AsyncIterator[Any]:
    settings = ModelSettings(model=str(peft.folder), device="cpu", dtype=request.param)
    backend = TransformersBackend(settings, store, max_rows=4)
    await backend.start()
    yield backend
    await backend.close()


def folder_of(store: AdapterStore, ref: AdapterRef) -> Path:
    folder = store.local_path(ref.digest)
    assert folder is not None
    return folder


def swap(left: Path, right: Path) -> None:
    aside = left.with_name("aside")
    shutil.move(left, aside)
    shutil.move(right, left)
    shutil.move(aside, right)


def swap_weights_alone(store: AdapterStore) -> None:
    """The manifests are told the hashes of the files that they now lie beside."""
    one, two = folder_of(store, ONE), folder_of(store, TWO)
    swap(one / WEIGHTS_FILE, two / WEIGHTS_FILE)
    sums = [json.loads((f / MANIFEST).read_text())["files"][WEIGHTS_FILE] for f in (two, one)]
    for folder, entry in zip((one, two), sums, strict=True):
        change_manifest(folder, files={**json.loads((folder / MANIFEST).read_text())["files"], WEIGHTS_FILE: entry})


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap_folders(store: AdapterStore) -> None:
    swap(folder_of(store, ONE), folder_of(store, TWO))


def damage(store: AdapterStore) -> None:
    """One weight of a layer, hashed anew."""
    weights = load_adapter(store.fetch(ONE.digest))
    path = "model.layers.1.mlp.down_proj"
    a, b = weights.tensors[path]
    tensors = {**weights.tensors, path: (a, b.clone().index_fill_(0, torch.tensor([5]), 30.0))}
    files = dump_adapter(LoraWeights(weights.config, tensors), "tiny")
    probe = store.manifest(ONE.digest)["probe"]
    store.delete(ONE.digest)
    store.put(ONE.digest, files, {"probe": probe})


async def test_adapters_that_are_what_they_should_be_answer(backend: TransformersBackend) -> None:
    for adapter in (ONE, TWO, POLICY):
        assert (await backend.generate(TOWN, GREEDY, adapter=adapter)).text
    assert (await backend.generate(TOWN, GREEDY, policy=Policy(name="policies/p", adapter=POLICY), adapter=OVER)).text


@pytest.mark.parametrize("trick", [swap_folders, swap_weights_alone, damage])
async def test_swapped_or_changed_weights_are_refused_and_nothing_of_them_is_kept(
    backend: TransformersBackend, store: AdapterStore, trick: Any, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "adapters", tmp_path / "kept")
    trick(store)
    for call in (backend.generate(TOWN, GREEDY, adapter=ONE), backend.divergence(["the town"], adapter=ONE)):
        with pytest.raises(AdapterMismatch) as caught:
            await call
        assert caught.value.metadata["digest"] == ONE.digest
        assert caught.value.metadata["expected"] != caught.value.metadata["found"]
    shutil.rmtree(tmp_path / "adapters")
    shutil.move(tmp_path / "kept", tmp_path / "adapters")
    assert (await backend.generate(TOWN, GREEDY, adapter=ONE)).text


async def test_the_evaluator_refuses_and_gives_no_score(peft: PeftReference, store: AdapterStore) -> None:
    backend = TransformersBackend(ModelSettings(model=str(peft.folder), device="cpu"), store, max_rows=4)
    server = GrpcServer(EvaluatorService(backend, kept_verdicts=99), ServerSettings(listen="127.0.0.1:0"))
    await server.listen()
    await server.start()
    client = EvaluatorClient(server.address)
    query = Query(query_id="q/1", question="Where?", gold="in the town", prompt=TOWN)
    request = EvaluationRequest(
        policy=Policy(name="policies/base"),
        adapter=ONE,
        queries=(query,),
        sampling=GREEDY,
        judge="exact",
        retention_queries=(query,),
    )
    try:
        for trick in (swap_weights_alone, swap_folders):
            trick(store)
            with pytest.raises(AdapterMismatch, match=ONE.digest) as caught:
                await client.evaluate(request)
            assert caught.value.metadata["digest"] == ONE.digest
    finally:
        await client.close()
        await server.stop(0)


async def test_a_probe_is_read_over_the_policy_it_was_taken_over(
    backend: TransformersBackend, store: AdapterStore
) -> None:
    change_manifest(folder_of(store, OVER), policy_digest="")
    with pytest.raises(AdapterMismatch):
        await backend.generate(TOWN, GREEDY, adapter=OVER)
    change_manifest(folder_of(store, OVER), policy_digest=OVER.digest)
    with pytest.raises(AdapterMismatch, match="over itself"):
        await backend.generate(TOWN, GREEDY, adapter=OVER)
    change_manifest(folder_of(store, OVER), policy_digest=POLICY.digest)
    store.delete(POLICY.digest)
    with pytest.raises(AdapterNotFound, match=POLICY.digest):
        await backend.generate(TOWN, GREEDY, adapter=OVER)


async def test_an_adapter_of_another_base_model_is_refused(backend: TransformersBackend, store: AdapterStore) -> None:
    change_manifest(folder_of(store, ONE), base_model={"digest": "e" * 64, "dtype": "float32"})
    with pytest.raises(AdapterMismatch, match="e" * 64):
        await backend.generate(TOWN, GREEDY, adapter=ONE)


async def test_a_probe_that_cannot_be_read_harms_nobody_else(backend: TransformersBackend, store: AdapterStore) -> None:
    change_manifest(folder_of(store, ONE), probe=["many", None])
    with pytest.raises(AdapterCorrupt, match="probe"):
        await backend.generate(TOWN, GREEDY, adapter=ONE)
    assert (await backend.generate(TOWN, GREEDY, adapter=TWO)).text


async def test_an_adapter_is_probed_once(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[int] = []
    reading = Engine.reading

    def watched(self: Engine, rows: Sequence[tuple[Adapter, ...]]) -> AbstractContextManager[PreTrainedModel]:
        probed.append(len(rows))
        return reading(self, rows)

    monkeypatch.setattr(Engine, "reading", watched)
    for _ in range(2):
        await asyncio.gather(*(backend.generate(TOWN, GREEDY, adapter=ONE) for _ in range(4)))
    assert probed == [1]


async def test_files_alone_are_enough_for_an_adapter_made_by_others(
    backend: TransformersBackend, store: AdapterStore, peft: PeftReference
) -> None:
    store.put("5" * 64, {name: peft.files("one")[name] for name in (CONFIG_FILE, WEIGHTS_FILE)}, {})
    assert (await backend.generate(TOWN, GREEDY, adapter=AdapterRef(digest="5" * 64))).text
