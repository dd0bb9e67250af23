"""Attention over packed segments, written out by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

from sealkit.errors import InvalidModel
from tests.unit.trainer.jobs import packed, sequences
from trainer_svc.attention import packed_attention
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part


@pytest.mark.parametrize("window", [None, 3])
def test_each_segment_attends_to_itself_alone(window):
    draw = torch.Generator().manual_seed(0)
    lengths = (4, 4, 1, 7, 2)
    q, k, v = (torch.randn(1, heads, sum(lengths), 8, generator=draw, dtype=torch.float64) for heads in (4, 2, 2))
    ours, _ = packed_attention(None, q, k, v, None, segment_lengths=lengths, scaling=0.3, sliding_window=window)
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    position = torch.arange(sum(lengths))
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = (segment[:, None] == segment) & (position[:, None] >= position)
    if window:
        seen &= position[:, None] - position < window
    weights = (0.3 * q @ k.transpose(-1, -2)).masked_fill(~seen, -torch.inf).softmax(-1)
    assert torch.allclose(ours, (weights @ v).transpose(1, 2))


def test_a_family_with_a_sliding_window_is_served_right():
    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).double().eval().requires_grad_(False)
    batch = sequences(3, 1, shortest=9, longest=14)
    with torch.no_grad():
        alone = [model(torch.tensor([s.ids])).logits[0, [label - 1 for label in s.labels]] for s in batch]
    together = PackedModel(model).logits([Part((s,)) for s in batch])
    assert torch.allclose(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_a_model_that_mixes_packed_sequences_is_refused(folders, monkeypatch):
    def leaky(*args, segment_lengths, **options):
        return packed_attention(*args, segment_lengths=(sum(segment_lengths),), **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "seal_packed", leaky)
    with pytest.raises(InvalidModel, match="attention between packed sequences"):
        packed(folders["llama"])
