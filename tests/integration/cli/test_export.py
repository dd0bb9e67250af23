"""An exported version loads in PEFT and in Transformers as it is, with the same answers, and has a model card."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from seal_cli.export import export_version
from sealkit.backends.lora import LoraWeights, dump_adapter
from sealkit.backends.models import ModelSettings, load_model
from sealkit.errors import AdapterMismatch, FailedPrecondition, InvalidInput
from sealkit.reports import Lineage, LineageDocument, LineageQuery
from sealkit.resources import GateState, PolicyVersion
from sealkit.routing import Route, dump_routes
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import AdapterRef, LoraConfig

pytestmark = pytest.mark.integration  # a merged export runs in a process of its own

DIGEST = "ab" * 32
ADAPTER = AdapterRef(digest=DIGEST)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", layers=1)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


@pytest.fixture
def store(tmp_path: Path, model: Path) -> str:
    generator = torch.Generator().manual_seed(1)
    tensors = {
        "model.layers.0.self_attn.q_proj": (
            torch.randn(4, 64, generator=generator), torch.randn(64, 4, generator=generator),
        )
    }  # fmt: skip
    weights = LoraWeights(LoraConfig(rank=4, alpha=8, target_modules=("q_proj",)), tensors)
    AdapterStore(str(tmp_path / "store")).put(DIGEST, dump_adapter(weights, "tiny"), {})
    return str(tmp_path / "store")


def lineage(base_model: str, adapter: AdapterRef | None = ADAPTER) -> Lineage:
    version = PolicyVersion(
        name="policies/learn-1a2b3c4d-2", run="runs/learn-1a2b3c4d", version=2, adapter=adapter,
        gate=GateState.PASSED, gate_reason="it forgot 0.05 [0.00, 0.12] of 32 retention questions",
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    query = LineageQuery(query_id="q", question="Who?", gold="Ana", generated=True)
    document = LineageDocument(
        name="a|b.pdf", digest="cd" * 32, run=version.run, queries=(query,), accuracy_before=0.0, accuracy_after=0.75
    )
    return Lineage(version=version, base_model=base_model, documents=(document,))


def greedy(model: torch.nn.Module, folder: Path) -> list[int]:
    tokens = AutoTokenizer.from_pretrained(folder)("The lighthouse at", return_tensors="pt")
    return model.generate(**tokens, max_new_tokens=12, do_sample=False)[0].tolist()  # type: ignore[operator]


def test_peft_and_transformers_load_what_was_exported_and_answer_alike(tmp_path: Path, model: Path, store: str) -> None:
    digest = load_model(ModelSettings(model=str(model), device="cpu", dtype="float32")).info.digest
    export_version(lineage(digest), tmp_path / "adapter", store=store, base=model, merged=False, data=tmp_path)
    base = AutoModelForCausalLM.from_pretrained(model)
    plain = greedy(base, model)
    adapted = greedy(PeftModel.from_pretrained(base, str(tmp_path / "adapter")), model)
    assert adapted != plain

    export_version(lineage(digest), tmp_path / "whole", store=store, base=model, merged=True, data=tmp_path)
    assert greedy(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), tmp_path / "whole") == adapted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "store", "whole"]

    card = (tmp_path / "adapter" / "README.md").read_text()
    for part in (
        "license: apache-2.0", 'base_model: "tiny"', "library_name: peft", digest, "cd" * 32,
        "| a\\|b.pdf |", "1 (generated)", "0.00 → 0.75", "it forgot 0.05 [0.00, 0.12]",
    ):  # fmt: skip
        assert part in card, part


def test_a_routed_version_is_a_folder_of_adapters_that_peft_loads(tmp_path: Path, model: Path, store: str) -> None:
    passages = ("The Marrow Lock was built in 1911.", "The Quillan Library lends seeds.")
    routes = [Route(adapter=ADAPTER, text=text) for text in passages]
    adapters, routed = AdapterStore(store), AdapterRef(digest="ef" * 32)
    adapters.put(routed.digest, dump_routes(routes), {})
    found = lineage("0" * 64, routed)
    export_version(found, tmp_path / "out", store=store, base=model, merged=False, data=tmp_path)
    listed = json.loads((tmp_path / "out" / "routes.json").read_text())
    assert [(one["passage"], one["digest"]) for one in listed] == [(text, DIGEST) for text in passages]
    base = AutoModelForCausalLM.from_pretrained(model)
    plain = greedy(base, model)
    assert greedy(PeftModel.from_pretrained(base, str(tmp_path / "out" / listed[1]["folder"])), model) != plain
    card = (tmp_path / "out" / "README.md").read_text()
    assert "one in each folder for one passage each" in card
    with pytest.raises(AdapterMismatch, match="consolidate"):
        export_version(found, tmp_path / "whole", store=store, base=model, merged=True, data=tmp_path)
    assert not (tmp_path / "whole").exists()


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, model: Path, store: str) -> None:
    def refused(error: type[Exception], found: Lineage, **options: object) -> str:
        values = {"store": store, "base": model, "merged": False, "data": tmp_path, **options}
        with pytest.raises(error) as caught:
            export_version(found, tmp_path / "out", **values)  # type: ignore[arg-type]
        return str(caught.value)

    assert "is the base model itself" in refused(FailedPrecondition, lineage("0" * 64, None))
    assert "name it with --base" in refused(FailedPrecondition, lineage("0" * 64), base=None, merged=True)
    assert "was trained on a base model with 000" in refused(FailedPrecondition, lineage("0" * 64), merged=True)
    (tmp_path / "out").mkdir()
    assert "exists already" in refused(InvalidInput, lineage("0" * 64))
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]
