"""Attention over packed segments: the model's own, or the model is refused at the start, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

from sealkit.errors import InvalidModel, UnknownTargetModule
from tests.unit.architectures.table import Architecture
from tests.unit.trainer.jobs import packed, sequences
from trainer_svc.attention import packed_attention
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part


def test_a_family_with_a_sliding_window_is_served_right():
    """Sequences on both sides of the window, in one pack."""
    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=9,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).double().eval().requires_grad_(False)
    batch = sequences(6, 1, shortest=3, longest=20)
    assert {len(s.ids) > 9 for s in batch} == {True, False}
    with torch.no_grad():
        alone = [model(torch.tensor([s.ids])).logits[0, [label - 1 for label in s.labels]] for s in batch]
    together = PackedModel(model).logits([Part((s,)) for s in batch])
    assert torch.allclose(together, torch.cat(alone), rtol=1e-9, atol=1e-9)


def _without(*names: str, masked: bool = True) -> Any:
    """A packed attention that ignores some of the options of the model's, or its mask."""

    def attention(kind, module, query, key, value, mask, **options):
        for name in names:
            options.pop(name, None)
        if not masked and mask is not None:
            mask._make = lambda _: None
        return packed_attention(kind, module, query, key, value, mask, **options)

    return attention


@pytest.mark.parametrize(
    ("architecture", "kind", "faulty"),
    [
        (Architecture("gemma2", config={"attn_logit_softcapping": 1.0}), "eager", _without("softcap")),
        (Architecture("granite", config={"attention_multiplier": 0.7}), "sdpa", _without("scaling")),
        (Architecture("mistral"), "sdpa", _without(masked=False)),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_an_attention_that_leaves_something_out_is_refused(monkeypatch, architecture, kind, faulty):
    """The comparison is with the model's own attention: one with itself would not see it."""
    monkeypatch.setitem(
        AttentionInterface._global_mapping, f"seal_packed_{kind}", lambda *a, **o: faulty(kind, *a, **o)
    )
    with pytest.raises(InvalidModel, match=r"ForCausalLM cannot be trained here: sequences do not get the logits"):
        PackedModel(architecture.build(torch.float64))


def test_a_model_that_mixes_packed_sequences_is_refused(folders, monkeypatch):
    def leaky(*args, segment_lengths, **options):
        return packed_attention("sdpa", *args, segment_lengths=(sum(segment_lengths),), **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "seal_packed_sdpa", leaky)
    with pytest.raises(InvalidModel, match="do not get the logits"):
        packed(folders["llama"])


def test_what_cannot_be_packed_is_refused_by_its_name():
    x = torch.zeros(1, 2, 4, 8)
    for told, options in {
        "takes indices": {"indices": None},
        "takes position_bias": {"position_bias": x},
        "makes its attention mask itself": {"attention_mask": torch.ones(4, 4)},
        "do not hand the lengths": {"segment_lengths": None},
        "other keys": {"key": torch.zeros(1, 2, 6, 8)},
    }.items():
        wanted = {"query": x, "key": x, "value": x, "attention_mask": None, "segment_lengths": (2, 2), **options}
        with pytest.raises(InvalidModel, match=told):
            packed_attention("sdpa", nn.Identity(), **wanted)


def test_a_model_that_was_loaded_with_another_attention_is_refused():
    model = Architecture("llama").build(torch.float32)
    model.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(InvalidModel, match=r"LlamaForCausalLM.*'flex_attention'; load it with sdpa or eager"):
        PackedModel(model)


def test_targets_that_peft_would_not_read_are_refused_before_training():
    """DeepSeek's dense layers have the names of the experts, which PEFT maps to fused parameters."""
    model = PackedModel(
        Architecture("deepseek_v3", config={"head_dim": 4, "num_key_value_heads": 4}).build(torch.float32)
    )
    assert "o_proj" in model.target_names
    assert not {"gate_proj", "up_proj", "down_proj"} & {*model.target_names}
    with pytest.raises(
        UnknownTargetModule, match=r"PEFT cannot read an adapter on 'gate_proj'.*valid target_modules: kv_"
    ):
        model.find_targets(["o_proj", "gate_proj"])
