"""Causal language models of transformers, random and small, and what becomes of each here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 64
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "top_k": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "shared_expert_intermediate_size": 16, "first_k_dense_replace": 1,
    "sliding_window": 5, "attention_chunk_size": 5,
    "q_lora_rank": 12, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
"""Fields of the configs, for those that have them; windows are shorter than the sequences."""

_TEXT = {name: value for name, value in _SMALL.items() if name not in ("top_k", "num_experts")}

MASK = "computes with its attention mask"
OTHER = "do not get the logits"
STATE = "a key and a value of one shape in every layer"
_LATENT = {"head_dim": 4, "num_key_value_heads": 4}
_INDEXED = {"index_n_heads": 2, "index_head_dim": 8}
_LONGCAT = {"ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 2, "num_layers": 1}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}


@dataclass(frozen=True)
class Architecture:
    """`kind`: transformers' model type; `config`: fields beside the small ones. `trained` and `decoded`: a part of the
    reason for which it is refused; empty: it is not."""

    name: str
    kind: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    trained: str = ""
    decoded: str = ""

    def build(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model, with the same random weights in each call."""
        family = type(AutoConfig.for_model(self.kind or self.name))
        known = {*family().__dict__, *getattr(family, "attribute_map", {}), *family.__dataclass_fields__}
        small = {name: value for name, value in _SMALL.items() if name in known and name not in self.config}
        config = {name: value for name, value in self.config.items() if value is not None}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(family(**small, **config), dtype=dtype)
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, dtype=torch.float64) * (0.2 if parameter.ndim > 1 else 0.1)
                # Vectors are scales of norms and biases, which keep their size.
                parameter.data = (noise if parameter.ndim > 1 else parameter.data + noise).to(dtype)
        if dtype == torch.float64 and hasattr(model.config, "_experts_implementation"):
            model.config._experts_implementation = "eager"  # the default has no float64
        return model.eval().requires_grad_(False)


def _several(names: str, config: dict[str, Any] | None = None, **refused: str) -> list[Architecture]:
    return [Architecture(name, config=config or {}, **refused) for name in names.split()]


CORE = [
    *_several("llama qwen2 qwen3 gemma gemma2 phi phi3 mistral olmo2 cohere granite glm4 gpt_neox starcoder2"),
    *_several("mixtral qwen2_moe qwen3_moe gpt_oss olmoe"),
    *_several("gemma3_text cohere2 exaone4", _SLIDING),
    *_several("deepseek_v3", _LATENT),
    *_several("bloom", trained=MASK),
    Architecture("lfm2", config={"layer_types": ["conv", "full_attention"]}, trained=OTHER, decoded=STATE),
    Architecture("nemotron", trained="do not hand the lengths"),
    Architecture("gpt2", trained="no linear layer"),
]
"""One of each kind of architecture, tested at every change."""
REST = [
    *_several("apertus arcee aria_text bitnet cwm diffllama ernie4_5 flex_olmo flint glm gpt_bigcode granite_swa"),
    *_several("granitemoe granitemoe_swa granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax"),
    *_several("jais2 jetmoe kolibri1 laguna mellum minimax_m2 ministral ministral3 nanochat olmo persimmon phimoe"),
    *_several("seed_oss smollm3 vaultgemma dots1 ernie4_5_moe glm4_moe solar_open afmoe biogpt cohere2_moe"),
    *_several("exaone_moe olmo3", _SLIDING),
    *_several("deepseek_v2 minicpm3 youtu glm4_moe_lite axk1", _LATENT),
    *_several("deepseek_v32 glm_moe_dsa axk2", {**_LATENT, **_INDEXED}, trained=MASK, decoded=STATE),
    *_several("falcon", {"head_dim": None, "num_kv_heads": 2, "new_decoder_architecture": True}, trained=MASK),
    Architecture("mpt", trained=MASK),
    Architecture("gpt_neox_japanese", trained=MASK, decoded="its code stops with RuntimeError"),
    *_several("gptj codegen", {"rotary_dim": 4}, trained=MASK),
    *_several("modernbert-decoder hrm_text"),
    *_several("recurrent_gemma jamba olmo_hybrid bailing_hybrid minimax lfm3", trained=OTHER, decoded=STATE),
    *_several("bamba", {**_MAMBA, "attn_layer_indices": [1]}, trained=OTHER, decoded=STATE),
    Architecture("opt", config={"word_embed_proj_dim": 32, "ffn_dim": 48}),
    Architecture("longcat_flash", config={**_LATENT, **_LONGCAT}),
    Architecture("llama4_text", config={"layer_types": ["chunked_attention", "full_attention"]}),
    Architecture(
        "gemma3",
        config={
            "text_config": {**_TEXT, **_SLIDING},
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 8, "patch_size": 4,
            },
            "mm_tokens_per_image": 4, "image_token_index": 60, "boi_token_index": 61, "eoi_token_index": 62,
        },
    ),
    Architecture("stablelm", trained="do not hand the lengths"),
    Architecture("doge", trained=MASK),
    Architecture("deepseek_v4", trained="other keys", decoded=STATE),
    Architecture("hy_v4", trained=MASK, decoded=STATE),
    Architecture("mimo_v2_flash", decoded=STATE),
    Architecture("minimax_m3_vl_text", trained="block_indices"),
    Architecture(
        "gpt_neo", config={"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 5},
        trained=MASK, decoded=OTHER,
    ),
    Architecture(
        "llama with yarn", "llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    Architecture("llama with dynamic NTK", "llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}),
    Architecture(
        "phi3 with longrope", "phi3",
        {
            "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
            "original_max_position_embeddings": 64, "sliding_window": None,
        },
    ),
]  # fmt: skip
