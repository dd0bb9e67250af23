"""How many tokens a model reads."""

from __future__ import annotations

from transformers import PreTrainedConfig

_DEFAULT = 2048
_CHANGING = ("dynamic", "longrope")
"""Rotary variants whose frequencies depend on the longest sequence in the batch, beyond a length."""


def context_length(config: PreTrainedConfig) -> int:
    """Most tokens of a sequence: the model's positions. With a rotary variant whose frequencies change with the longest
    sequence in the batch (dynamic NTK, longrope), as many as leave them unchanged: beyond it, one sequence would
    change the numbers of those beside it, and keys in the cache would no longer fit the queries."""
    config = config.get_text_config()
    most = int(getattr(config, "max_position_embeddings", 0) or _DEFAULT)
    return min([most, *(_unchanged(one, most) for one in _rotary(config))])


def _rotary(config: PreTrainedConfig) -> list[dict[str, object]]:
    """The rotary parameters: of the model, or of each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [one for one in found.values() if isinstance(one, dict)]
    return nested or [found]


def _unchanged(parameters: dict[str, object], most: int) -> int:
    kind = str(parameters.get("rope_type", "default"))
    original = parameters.get("original_max_position_embeddings")
    if isinstance(original, int) and any(name in kind for name in _CHANGING):
        return original
    return most
