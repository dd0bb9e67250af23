"""Counting a model's tokens, for those that split text by them."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase


def token_counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    """A function from a text to its number of tokens, without special tokens. Not safe to call concurrently."""
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
