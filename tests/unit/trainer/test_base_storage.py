"""A base in 4 bits, over several devices, with its activations computed twice: the same gradients, or a plain word."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sealkit.backends import loading
from sealkit.backends.loading import Loading
from sealkit.backends.models import ModelSettings, load_model
from sealkit.errors import GpuMemory, InvalidConfig
from tests.unit.trainer.jobs import job_spec, packed
from tests.unit.trainer.plain import relative
from tests.unit.trainer.test_training_engine import SmallMemory, run
from trainer_svc.adapter import initial_weights
from trainer_svc.linear import PackedLinear
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part


def load(folder, **how):
    return load_model(ModelSettings(model=str(folder), dtype="float32", device="cpu"), Loading(**how))


def gradients(model: PackedModel):
    spec = job_spec(3, 1)
    weights = initial_weights(spec.lora, model.find_targets(spec.lora.target_modules), 1)
    adapter = model.trainable(weights, spec.optimisation)
    model.forward_backward([Part(spec.sequences, adapter)])
    return adapter.gradients()


def test_four_bits_give_the_gradients_of_what_they_stand_for(folders):
    pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    loaded = load(folders["qwen2"], four_bit=True)
    assert loaded.info.dtype == "float32-nf4"
    model = PackedModel(loaded.model)
    dense = load(folders["qwen2"]).model
    for path, linear in model.find_targets(model.target_names).items():
        assert isinstance(linear, PackedLinear)
        assert linear.weight.dtype == torch.uint8
        dense.get_submodule(path).weight = nn.Parameter(linear.frozen_weight(torch.float32), requires_grad=False)
    ours = gradients(model)
    assert relative(ours, gradients(PackedModel(dense))) < 1e-5
    assert relative(ours, gradients(packed(folders["qwen2"], torch.float32))) > 1e-3


def test_a_device_map_changes_nothing_on_one_device(folders):
    mapped = PackedModel(load(folders["llama"], device_map="auto").model)
    assert relative(gradients(mapped), gradients(packed(folders["llama"], torch.float32))) < 1e-5


@pytest.mark.parametrize(
    ("how", "missing"), [({"four_bit": True}, "bitsandbytes"), ({"device_map": "auto"}, "accelerate")]
)
def test_a_missing_package_is_named_with_the_way_to_it(folders, monkeypatch, how, missing):
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(InvalidConfig, match=f"needs the package {missing}.*pip install"):
        load(folders["llama"], **how)


def test_a_gguf_file_is_not_loaded_in_four_bits(folders, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidConfig, match="export it"):
        load(tmp_path / "model.gguf", four_bit=True)


def test_checkpointing_changes_nothing(folders, models, make_engine):
    """Unlike jobs, one of them with dropout: its masks must be those of the first pass."""
    specs = [job_spec(4, 1), job_spec(3, 2, lora={"dropout": 0.3, "target_modules": ("q_proj", "v_proj")})]
    expected = run(make_engine(models["llama"]), *specs)
    model = packed(folders["llama"])
    model.checkpointed.on = True
    passes = []
    model.model.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    for trained, plain in zip(run(make_engine(model), *specs), expected, strict=True):
        assert relative(trained.weights.tensors, plain.weights.tensors) < 1e-9
    assert sum(passes) == 2 * 8, "each layer runs twice in a step"


class Tight(SmallMemory):
    """A device on which `tokens` fit, and more with checkpointing."""

    def forward_backward(self, parts):
        if self._model.checkpointed.on:
            return self._model.forward_backward(parts)
        return super().forward_backward(parts)


def test_checkpointing_comes_on_where_a_micro_batch_does_not_fit(folders, models, make_engine):
    big = job_spec(6, 1, batch_size=6)
    (expected,) = run(make_engine(models["llama"]), big)
    model = packed(folders["llama"])
    (trained,) = run(make_engine(Tight(model, 20)), big)
    assert model.checkpointed.on
    assert relative(trained.weights.tensors, expected.weights.tensors) < 1e-9


def test_checkpointing_that_does_not_help_goes_off_again(folders, make_engine):
    model = packed(folders["llama"])
    engine = make_engine(SmallMemory(model, 20))
    hopeless = engine.submit(job_spec(6, 1, batch_size=6))
    engine.start()
    with pytest.raises(GpuMemory):
        hopeless.result.result(timeout=30)
    assert not model.checkpointed.on


def test_bfloat16_is_as_good_as_its_weights(folders):
    """Where the device is slow at bfloat16, products are taken in float32: only weights and activations are rounded."""
    narrow, wide = (gradients(packed(folders["qwen2"], dtype)) for dtype in (torch.bfloat16, torch.float32))
    flat = [torch.cat([t.flatten() for pair in some.values() for t in pair]) for some in (narrow, wide)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.99
