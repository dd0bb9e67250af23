"""Nothing loads that leaves a weight of the model unset or a key of the checkpoint unused; the digest covers what was
loaded and all that changes answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from sealkit.backends.models import LoadedModel, ModelSettings, describe_model, load_model
from sealkit.errors import InvalidModel
from sealkit.testing.tiny import make_tiny_model

Weights = dict[str, Tensor]
_RENAMED: dict[str, Callable[[str], str]] = {
    "merge_and_unload": lambda key: f"base_model.model.{key}",
    "model._orig_mod": lambda key: f"_orig_mod.{key}",
    "model.module": lambda key: f"module.{key}",
    "adapter that is not merged": lambda key: key.replace("q_proj.", "q_proj.base_layer."),
    "full state dict": lambda key: key.replace("model.layers.0.", "model.layers.0._fsdp_wrapped_module."),
}
"""What training tools leave in keys, by what the error advises."""
_CHANGED: dict[str, Callable[[Weights], Weights]] = {
    "lm_head.weight": lambda held: {key: held[key] for key in held if key != "lm_head.weight"},
    "model.layers.1.": lambda held: {key: held[key] for key in held if "layers.1." not in key},
    "model.layers.0.self_attn.q_proj.bias": lambda held: {key: held[key] for key in held if "bias" not in key},
    "model.embed_tokens.weight": lambda held: {key: held[key] for key in held if "embed" not in key},
    "model.layers.2.extra.weight": lambda held: held | {"model.layers.2.extra.weight": torch.ones(2)},
    "model.norm.weight": lambda held: held | {"model.norm.weight": torch.ones(3)},
    "as integers": lambda held: {key: value.to(torch.int8) for key, value in held.items()},
}
"""What is wrong with a checkpoint, by what the error names."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("whole") / "m", "qwen2", hidden=16, heads=2, kv_heads=1, vocab=320)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(path: Path, **options: Any) -> LoadedModel:
    return load_model(ModelSettings(model=str(path), device="cpu", dtype="float32", **options))


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def set_json(file: Path, **values: Any) -> None:
    held = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(held | values))


def test_a_checkpoint_that_does_not_fill_the_model_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    changes = _CHANGED | {
        told: (lambda held, rename=rename: {rename(key): value for key, value in held.items()})  # type: ignore[misc]
        for told, rename in _RENAMED.items()
    }
    wrong = []
    for number, (told, change) in enumerate(changes.items()):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        rewrite(folder, change)
        try:
            load(folder)
            wrong.append(f"{told}: loads")
        except InvalidModel as error:
            if told not in error.message:
                wrong.append(f"{told}: {error.message}")
    assert not wrong


def test_a_head_that_is_tied_is_not_missed(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tied", hidden=16, heads=2, kv_heads=1, vocab=320)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    ours, theirs = load(folder).model, AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_what_libraries_raise_bare_is_an_error_of_ours(whole: Path, tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [
        {"num_hidden_layers": "two"}, {"num_attention_heads": 0}, {"vocab_size": None}, {"hidden_act": "nope"},
        {"num_hidden_layers": 1}, {"rope_scaling": {"rope_type": "nope"}}, {"model_type": "nope"},
        {"quantization_config": {"quant_method": "nope"}}, {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"transformers_weights": "../other.safetensors"}, {"transformers_weights": "other.bin"},
    ]  # fmt: skip
    for number, config in enumerate(configs):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        set_json(folder / "config.json", **config)
        with pytest.raises(InvalidModel) as raised:
            load(folder)
        assert str(folder) in raised.value.message, config


def test_an_adapter_in_the_folder_is_refused_and_not_applied(folder: Path) -> None:
    set_json(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/base", r=2)
    for read in (load, lambda path: describe_model(str(path))):
        with pytest.raises(InvalidModel, match="adapter beside the model"):
            read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InvalidModel, match=r"is an adapter, not a model; give its base model \(some/base\)"):
        load(folder)


def test_the_digest_is_of_the_files_that_are_read(folder: Path) -> None:
    before = load(folder).info.digest
    save_file({"other": torch.ones(3)}, folder / "consolidated.safetensors")
    assert load(folder).info.digest == before
    (folder / "consolidated.safetensors").unlink()
    weights = load_file(folder / "model.safetensors")
    parts = {"a.safetensors": list(weights)[:5], "b.safetensors": list(weights)[5:]}
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    places = {key: name for name, keys in parts.items() for key in keys}
    set_json(folder / "model.safetensors.index.json", metadata={}, weight_map=places)
    split = load(folder).info.digest
    save_file({"other": torch.ones(3)}, folder / "c.safetensors")
    assert load(folder).info.digest == split
    (folder / "b.safetensors").rename(folder / "d.safetensors")
    with pytest.raises(InvalidModel, match=r"names b\.safetensors, which is not there"):
        load(folder)


def test_end_tokens_are_those_of_transformers_and_part_of_the_digest(folder: Path) -> None:
    own = AutoTokenizer.from_pretrained(folder).eos_token_id
    digests = set()
    for ends in (own, [own, 5], [7, 5], None):
        set_json(folder / "generation_config.json", eos_token_id=ends)
        loaded = load(folder)
        theirs = Qwen2ForCausalLM.from_pretrained(folder).generation_config.eos_token_id
        assert loaded.end_ids == {own, *(theirs if isinstance(theirs, list) else [own if theirs is None else theirs])}
        assert describe_model(str(folder))[1].digest == loaded.info.digest
        digests.add(loaded.info.digest)
    assert len(digests) == 3
    (folder / "generation_config.json").unlink()
    set_json(folder / "config.json", eos_token_id=[own, 9])
    theirs = Qwen2ForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert load(folder).end_ids == {own, *theirs} == {own, 9}
    for broken in ("{", '{"eos_token_id": "</s>"}'):  # transformers takes the first for no file at all
        (folder / "generation_config.json").write_text(broken)
        with pytest.raises(InvalidModel, match=r"generation_config\.json"):
            load(folder)


def test_a_gguf_fills_the_model_or_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m", hidden=32, layers=1, heads=2, kv_heads=2, vocab=320)
    write_gguf(folder, tmp_path / "whole.gguf")
    ours, theirs = load(tmp_path / "whole.gguf").model.state_dict(), load(folder).model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert describe_model(str(tmp_path / "whole.gguf"))[1].digest == load(tmp_path / "whole.gguf").info.digest
    write_gguf(folder, tmp_path / "less.gguf", without="ffn_up")
    with pytest.raises(InvalidModel, match=r"1 weights of the model are not in it \(model\.layers\.0\.mlp\.up_proj"):
        load(tmp_path / "less.gguf")
    write_gguf(folder, tmp_path / "part-00001-of-00003.gguf", without="ffn_")
    with pytest.raises(InvalidModel, match="one of 3 parts of a split GGUF: join them with llama-gguf-split"):
        load(tmp_path / "part-00001-of-00003.gguf")
    set_json(tmp_path / "adapter_config.json", peft_type="LORA")
    with pytest.raises(InvalidModel, match="adapter beside the model"):
        load(tmp_path / "whole.gguf")


_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "model.layers": "blk",
}  # fmt: skip


def write_gguf(folder: Path, file: Path, *, without: str = "-") -> None:
    """The Llama model of `folder` as llama.cpp's converter writes it, without the tensors named so."""
    config, tokenizer = json.loads((folder / "config.json").read_text()), AutoTokenizer.from_pretrained(folder)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(rules["vocab"], key=rules["vocab"].get))
    writer.add_token_types([3 if place < 3 else 1 for place in range(len(rules["vocab"]))])
    writer.add_token_merges([" ".join(merge) for merge in rules["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for key, value in load_file(folder / "model.safetensors").items():
        name = key
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        if "q_proj" in key or "k_proj" in key:  # llama.cpp pairs the halves of a head's rotation
            value = value.view(heads, 2, hidden // heads // 2, -1).transpose(1, 2).reshape(value.shape)
        if without not in name:
            writer.add_tensor(name, value.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
