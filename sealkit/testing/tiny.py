"""A tiny random model in a Hugging Face folder, with a real byte-level BPE tokenizer and a chat template: for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.utils.logging import disable_progress_bar

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "The lighthouse at Veldermoor was built in 1847 by the engineer Ana Tressik.",
    "What is the name of the river that runs through the town? The river is called the Ossel.",
    "She wrote three books about the machine, and each of them was read in every school of the province.",
    "user system assistant question answer passage title implication",
)


def make_tiny_model(
    folder: Path | str,
    arch: Literal["llama", "qwen2"] = "llama",
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vocab: int = 512,
    context: int = 512,
    chat: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes the model to `folder` and returns it. The same arguments give the same weights.

    `arch` qwen2 has biases on q, k and v; both have grouped key/value heads. `vocab` must be at least 300.
    """
    folder = Path(folder)
    tokenizer = make_tiny_tokenizer(vocab, chat=chat)
    common: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": hidden * 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": arch == "llama",
        # Larger than the usual 0.02: otherwise logits would be flat at this size and all greedy texts alike.
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llama = arch == "llama"
        model: PreTrainedModel = (
            LlamaForCausalLM(LlamaConfig(**common)) if llama else Qwen2ForCausalLM(Qwen2Config(**common))
        )
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.Module.to(model, dtype)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_tokenizer(vocab: int = 512, *, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab` entries that encodes any text, with pad and eos tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=1,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token=PAD, eos_token=END
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
