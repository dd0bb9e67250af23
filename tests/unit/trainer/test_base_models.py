"""Which models and adapters are taken, and what the others are told."""

from __future__ import annotations

import json

import pytest
import torch

from sealkit.backends.lora import CONFIG_FILE, LoraWeights, dump_adapter, load_adapter
from sealkit.backends.models import ModelSettings, export_model, load_model
from sealkit.errors import AdapterCorrupt, InvalidModel
from sealkit.types import LoraConfig


def load(model, **options):
    return load_model(ModelSettings(model=str(model), dtype="float32", **options))


def test_a_folder_is_loaded_frozen_and_its_digest_is_its_content(folders, tmp_path):
    loaded = load(folders["llama"])
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert (loaded.info.name, loaded.info.context_length) == ("llama", 64)
    copy = export_model(str(folders["llama"]), tmp_path / "copy", dtype="float32")
    assert load(copy).info.tokenizer_digest == loaded.info.tokenizer_digest
    weights = next(copy.glob("*.safetensors"))
    before = load(copy).info.digest
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert load(copy).info.digest != before


def test_an_export_keeps_every_weight_and_what_is_there_already(folders, tmp_path):
    folder = export_model(str(folders["qwen2"]), tmp_path / "out", dtype="float32")
    ours, theirs = load(folder).model.state_dict(), load(folders["qwen2"]).model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    (folder / "mark").touch()
    assert export_model(str(folders["llama"]), folder) == folder
    assert (folder / "mark").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("missing", None, "there is no model at"),
        ("empty", {}, "no config.json"),
        ("unsafe", {"config.json": b"{}", "pytorch_model.bin": b""}, "safetensors"),
        ("broken", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"xx"}, "no causal language model"),
    ],
)
def test_what_is_no_model_is_named_with_the_reason(tmp_path, name, files, told):
    folder = tmp_path / name
    if files is not None:
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
    with pytest.raises(InvalidModel, match=told) as failure:
        load(folder)
    assert name in failure.value.message


def test_a_broken_gguf_and_a_device_that_is_not_there_are_refused(tmp_path, folders):
    (tmp_path / "model.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(InvalidModel, match=r"model\.gguf"):
        load(tmp_path / "model.gguf")
    with pytest.raises(InvalidModel, match="device 'nowhere'"):
        load(folders["llama"], device="nowhere")


@pytest.fixture
def files():
    config = LoraConfig(rank=2, alpha=3, target_modules=("q_proj",))
    return dump_adapter(LoraWeights(config, {"layers.0.q_proj": (torch.ones(2, 4), torch.ones(3, 2))}), "base")


def test_an_adapter_survives_the_way_to_its_files_and_back(files):
    weights = load_adapter(files)
    assert (weights.config.rank, weights.scaling) == (2, 1.5)
    assert dump_adapter(weights, "base") == files


def test_a_rank_stabilised_adapter_keeps_its_scaling(files):
    config = json.loads(files[CONFIG_FILE]) | {"use_rslora": True}
    assert load_adapter(files | {CONFIG_FILE: json.dumps(config).encode()}).scaling == pytest.approx(3 / 2**0.5)


@pytest.mark.parametrize("change", [{"use_dora": True}, {"bias": "all"}, {"rank_pattern": {"q_proj": 4}}, {"r": 3}])
def test_an_adapter_that_would_be_applied_wrongly_is_refused(files, change):
    config = json.loads(files[CONFIG_FILE]) | change
    with pytest.raises(AdapterCorrupt):
        load_adapter(files | {CONFIG_FILE: json.dumps(config).encode()})


def test_an_adapter_without_its_files_is_refused(files):
    for name in files:
        with pytest.raises(AdapterCorrupt, match=name):
            load_adapter({other: data for other, data in files.items() if other != name})
