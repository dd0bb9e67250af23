"""Positions: how many a model has, and that a batch never reads past them or past a window."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, Gemma3Config, LlamaConfig, Phi3Config

from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.row import Row
from sealkit.backends.models import ModelSettings, load_model
from sealkit.backends.positions import context_length
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import Sampling
from tests.unit.architectures.checks import loaded
from tests.unit.architectures.table import Architecture

_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}


def test_a_sequence_has_at_most_the_positions_whose_numbers_do_not_depend_on_others() -> None:
    small = {"hidden_size": 32, "num_attention_heads": 4}
    dynamic = {"rope_type": "dynamic", "factor": 4.0}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    for most, config in (
        (512, LlamaConfig(max_position_embeddings=512)),
        (2048, BloomConfig()),
        (512, LlamaConfig(max_position_embeddings=512, rope_parameters=dynamic)),
        (512, LlamaConfig(max_position_embeddings=512, rope_parameters=yarn)),
        (
            64,
            Phi3Config(
                **small, max_position_embeddings=512, original_max_position_embeddings=64, rope_parameters=_LONG,
                sliding_window=16, pad_token_id=0,
            ),
        ),
        (333, Gemma3Config(text_config={"max_position_embeddings": 333})),
    ):  # fmt: skip
        assert context_length(config) == most, config


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(
            "phi3",
            config={
                "rope_parameters": _LONG, "original_max_position_embeddings": 40, "max_position_embeddings": 256,
                "sliding_window": None,
            },
        ),
        Architecture("opt", config={"word_embed_proj_dim": 32, "ffn_dim": 48, "max_position_embeddings": 40}),
        Architecture("mistral", config={"max_position_embeddings": 40}),
    ],
    ids=lambda one: one.name,
)  # fmt: skip
def test_a_row_near_the_end_and_its_padding_change_nothing(architecture: Architecture) -> None:
    """A row that shares 30 tokens joins beside one that shares none, so its padding goes past the last position, where
    the rotary frequencies of all rows would change, or learned positions end. The last row goes past a window of 5."""
    base = architecture.build(torch.float32)
    base.generation_config.eos_token_id = None
    engine = Engine(loaded(copy.deepcopy(base)), max_rows=4, max_rank=8)
    draw = torch.Generator().manual_seed(3)
    prefix, other = (torch.randint(3, 64, (n,), generator=draw).tolist() for n in (30, 22))
    first = Row([*prefix, 5], Sampling(temperature=0), (), limit=8)
    late = [
        Row([*prefix, 6, 7], Sampling(temperature=0), (), limit=8),
        Row(other, Sampling(temperature=0), (), limit=8),
    ]
    engine.admit([first])
    engine.admit(late)
    while engine.running:
        engine.step()
    for row in (first, *late):
        ids = torch.tensor([row.prompt])
        alone = base.generate(input_ids=ids, max_new_tokens=8, do_sample=False, use_cache=False, pad_token_id=0)
        assert row.tokens == alone[0, len(row.prompt) :].tolist()


def windowed(folder: Path, out: Path, window: int) -> Path:
    """The Llama of `folder` as a Mistral with a window."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_a_window_does_not_bound_the_context(tmp_path: Path) -> None:
    plain = make_tiny_model(tmp_path / "plain", context=128)
    model = load_model(ModelSettings(model=str(windowed(plain, tmp_path / "out", 16)), device="cpu"))
    assert model.model.config.sliding_window == 16
    assert model.info.context_length == 128
