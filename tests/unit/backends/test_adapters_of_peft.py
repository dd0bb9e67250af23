"""Adapters that PEFT made: applied as PEFT applies them, or refused with what they use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from sealkit.backends.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter
from sealkit.errors import AdapterCorrupt
from sealkit.testing.tiny import make_tiny_model

_IDS = torch.arange(3, 19)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("peft") / "model", hidden=32, layers=2, vocab=320, context=64)


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def save(folder: Path, config: peft.PeftConfig, out: Path) -> dict[str, bytes]:
    """The files of an adapter of that config, with random weights."""
    torch.manual_seed(0)
    model = peft.get_peft_model(load(folder), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(out)
    return {file: (out / file).read_bytes() for file in (CONFIG_FILE, WEIGHTS_FILE)}


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **options}
    )


PLAIN: dict[str, Callable[[], peft.LoraConfig]] = {
    "defaults": lora,
    "rank stabilised": lambda: lora(use_rslora=True),
    "gaussian": lambda: lora(init_lora_weights="gaussian"),
    "orthogonal": lambda: lora(init_lora_weights="orthogonal"),
    "mica": lambda: lora(init_lora_weights="mica"),
    "not initialised": lambda: lora(init_lora_weights=False),
    "a pattern": lambda: lora(target_modules=r".*\.(q_proj|up_proj)"),
    "some layers": lambda: lora(layers_to_transform=[1], layers_pattern="layers"),
    "but one layer": lambda: lora(exclude_modules=["model.layers.0.self_attn.q_proj"]),
    "tied weights kept": lambda: lora(ensure_weight_tying=True),
}


def test_plain_adapters_do_here_what_they_do_in_peft(folder: Path, tmp_path: Path) -> None:
    off = {}
    for name, config in PLAIN.items():
        out = tmp_path / name
        weights = load_adapter(save(folder, config(), out))
        ours = load(folder)
        for path, (a, b) in weights.tensors.items():
            ours.get_submodule(path).weight.data += weights.scaling * b @ a
        theirs = peft.PeftModel.from_pretrained(load(folder), out)
        with torch.no_grad():
            expected = theirs(input_ids=_IDS).logits
            off[name] = float((ours(input_ids=_IDS).logits - expected).abs().max() / expected.abs().max())
    assert {name: value for name, value in off.items() if value > 1e-5} == {}


BEYOND: dict[str, Callable[[], peft.PeftConfig]] = {
    "init_lora_weights=pissa": lambda: lora(init_lora_weights="pissa"),
    "init_lora_weights=pissa_niter_2": lambda: lora(init_lora_weights="pissa_niter_2"),
    "init_lora_weights=olora": lambda: lora(init_lora_weights="olora"),
    "use_dora": lambda: lora(use_dora=True),
    "bias=all": lambda: lora(bias="all"),
    "lora_bias": lambda: lora(lora_bias=True),
    "rank_pattern": lambda: lora(rank_pattern={"q_proj": 2}),
    "alpha_pattern": lambda: lora(alpha_pattern={"q_proj": 2}),
    "modules_to_save": lambda: lora(modules_to_save=["lm_head"]),
    "trainable_token_indices": lambda: lora(trainable_token_indices=[3, 4]),
    "alora_invocation_tokens": lambda: lora(alora_invocation_tokens=[5, 6]),
    "layer_replication": lambda: lora(layer_replication=[(0, 2), (1, 2)]),
    "peft_type=LOHA": lambda: peft.LoHaConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "peft_type=VERA": lambda: peft.VeraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "peft_type=IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "peft_type=PROMPT_TUNING": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


def test_other_adapters_are_refused_by_what_they_use(folder: Path, tmp_path: Path) -> None:
    wrong = {}
    for used, config in BEYOND.items():
        files = save(folder, config(), tmp_path / used)
        try:
            load_adapter(files)
            wrong[used] = "it was read"
        except AdapterCorrupt as refusal:
            if used not in refusal.message or "merge_and_unload" not in refusal.message:
                wrong[used] = refusal.message
    assert wrong == {}


def test_features_that_need_more_to_be_made_are_refused_by_their_names(folder: Path, tmp_path: Path) -> None:
    """Those that PEFT only makes from data, a GPU or a mixture of experts; and what a later PEFT may add."""
    files = save(folder, lora(), tmp_path / "plain")
    config = json.loads(files[CONFIG_FILE])
    for change in (
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "of a later version"},
        {"target_parameters": ["mlp.experts.down_proj"]},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 2}},
        {"of_a_later_version": 1},
        {"peft_type": "XLORA"},
    ):
        with pytest.raises(AdapterCorrupt, match=next(iter(change))):
            load_adapter(files | {CONFIG_FILE: json.dumps(config | change).encode()})


def test_a_pissa_adapter_that_peft_converted_is_read(folder: Path, tmp_path: Path) -> None:
    """What the refusal tells to do."""
    torch.manual_seed(0)
    model = peft.get_peft_model(load(folder), lora(init_lora_weights="pissa"))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = "pissa"
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        expected = model(input_ids=_IDS).logits
    model.save_pretrained(tmp_path / "out", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    weights = load_adapter({file: (tmp_path / "out" / file).read_bytes() for file in (CONFIG_FILE, WEIGHTS_FILE)})
    ours = load(folder)
    for path, (a, b) in weights.tensors.items():
        ours.get_submodule(path).weight.data += weights.scaling * b @ a
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=_IDS).logits, expected, atol=1e-4)
