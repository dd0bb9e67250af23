"""How long a sequence a model can read, and which property of it sets that limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

LIMIT = "context"
"""Build fact of a model: the name of what limits its context."""
_POSITIONS = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "seq_length", "n_positions")
_DEFAULT = 2048
"""Positions of a model whose config names none (ALiBi)."""
_CHANGING = ("dynamic", "longrope")
"""Rotary variants whose frequencies depend on the longest sequence in the batch, beyond a length."""


def context_length(config: PreTrainedConfig) -> int:
    """Most tokens of a sequence, prompt and completion together: the model's positions. With a rotary variant whose
    frequencies change with the longest sequence in the batch (dynamic NTK, longrope), as many as leave them unchanged:
    beyond it, one sequence would change the numbers of those beside it, and keys in the cache would no longer fit the
    queries."""
    return _limit(config)[0]


def context_facts(config: PreTrainedConfig) -> dict[str, str]:
    """Build facts: the name of the limit, and `window` if there is a sliding window. A window does not limit the
    context: what is far behind it is still read, by the layers without one or through the tokens between."""
    facts = {LIMIT: _limit(config)[1]}
    if window := _sliding_window(config):
        kinds = _layer_types(config)
        narrow = kinds.count("sliding_attention") if kinds else config.get_text_config().num_hidden_layers
        facts["window"] = f"{window} tokens in {narrow} of {len(kinds) or narrow} layers"
    return facts


def _sliding_window(config: PreTrainedConfig) -> int | None:
    """Tokens that a layer with a sliding window reads, the current one included; None if no layer has one."""
    text: Any = config.get_text_config()
    kinds = _layer_types(config)
    if kinds and "sliding_attention" not in kinds:
        return None
    return getattr(text, "sliding_window", None) or None


def _layer_types(config: PreTrainedConfig) -> list[str]:
    """The attention of each layer, in transformers' terms; empty if the model does not distinguish."""
    return list(getattr(config.get_text_config(), "layer_types", None) or [])


def _limit(config: PreTrainedConfig) -> tuple[int, str]:
    text: Any = config.get_text_config()
    length, name = next(
        ((value, name) for name in _POSITIONS if isinstance(value := getattr(text, name, None), int) and value > 0),
        (_DEFAULT, "assumed, because the config names no positions"),
    )
    return min([(length, name), *_unchanged_rotary(text)])


def _unchanged_rotary(text: Any) -> Iterator[tuple[int, str]]:
    """Up to which length each rotary embedding, of the model or of a kind of layer, keeps its frequencies."""
    found = getattr(text, "rope_parameters", None) or {}
    for parameters in [one for one in found.values() if isinstance(one, dict)] or [found]:
        kind, original = str(parameters.get("rope_type")), parameters.get("original_max_position_embeddings")
        if isinstance(original, int) and any(name in kind for name in _CHANGING):
            yield original, f"original_max_position_embeddings of {kind}"
