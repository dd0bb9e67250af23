"""A policy's and a trial's adapter made one: the same model to the last digits that float64 holds."""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from sealkit.backends.lora import LoraWeights, concatenate, dump_adapter, load_adapter
from sealkit.errors import LimitExceeded
from sealkit.types import LoraConfig
from tests.unit.trainer.jobs import sequences
from tests.unit.trainer.plain import peft_model
from tests.unit.trainer.test_training_policy import peft_logits, random_weights, write

POLICY = {"rank": 3, "alpha": 12, "target_modules": ("q_proj", "down_proj")}
TRIALS = (
    {"rank": 3, "alpha": 6, "target_modules": ("q_proj", "down_proj")},
    {"rank": 5, "alpha": 2, "target_modules": ("q_proj", "v_proj", "up_proj")},
    {"rank": 1, "alpha": 1, "target_modules": ("layers.1.mlp.up_proj",)},
)


@pytest.mark.parametrize("trial", TRIALS)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_the_joined_adapter_answers_as_both_do_in_peft(folders, models, tmp_path, arch, trial):
    policy, over = random_weights(models[arch], 1, **POLICY), random_weights(models[arch], 2, **trial)
    (sequence,) = sequences(1, 3)
    both = peft_logits(peft_model(folders[arch], over, torch.float64, policy=policy), sequence)
    saved = write(tmp_path / "joined", concatenate(policy, over))
    base = AutoModelForCausalLM.from_pretrained(folders[arch], dtype=torch.float64)
    joined = peft_logits(peft.PeftModel.from_pretrained(base, saved, autocast_adapter_dtype=False), sequence)
    alone = peft_logits(peft_model(folders[arch], over, torch.float64), sequence)
    assert (joined - both).abs().max() < 1e-6 * both.abs().max()  # the files are float32
    assert (joined - alone).abs().max() > 1e-3 * both.abs().max()


def test_what_is_stored_is_plain_lora_of_both_ranks(models):
    policy, over = random_weights(models["llama"], 1, **POLICY), random_weights(models["llama"], 2, **TRIALS[1])
    joined = load_adapter(dump_adapter(concatenate(policy, over), "tiny"))
    assert (joined.config.rank, joined.scaling) == (8, 1.0)
    assert set(joined.config.target_modules) == {"q_proj", "down_proj", "v_proj", "up_proj"}
    assert {a.dtype for pair in joined.tensors.values() for a in pair} == {torch.float32}


def test_joining_again_and_again_adds_up(models):
    parts = [random_weights(models["llama"], seed, **POLICY) for seed in range(4)]
    whole = parts[0]
    for part in parts[1:]:
        whole = concatenate(whole, part)
    for path, (a, b) in whole.tensors.items():
        summed = sum(p.scaling * p.tensors[path][1] @ p.tensors[path][0] for p in parts)
        torch.testing.assert_close(whole.scaling * b @ a, summed)


def test_more_rank_than_an_adapter_may_have_is_refused_with_the_way_out():
    big = LoraConfig(rank=600, alpha=600, target_modules=("q_proj",))
    half = LoraWeights(big, {"q_proj": (torch.zeros(600, 4), torch.zeros(4, 600))})
    with pytest.raises(LimitExceeded, match="consolidate"):
        concatenate(half, half)
