"""Attention over packed sequences: many sequences in one row of tokens, without attention between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "seal_packed"


def packed_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    segment_lengths: Sequence[int],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment. `query` [1, heads, tokens, dim], `key` and `value` [1, kv heads, tokens,
    dim]; `segment_lengths` sum to `tokens`. Neighbouring segments of equal length are computed in one call.

    Returns [1, tokens, heads, dim], as transformers' attention interface requires.
    """
    runs = [(length, len(list(group))) for length, group in groupby(segment_lengths)]
    sizes = [length * count for length, count in runs]
    shared = query.shape[1] != key.shape[1]
    outputs = []
    for (length, count), *qkv in zip(runs, *(_cut(x, sizes) for x in (query, key, value)), strict=True):
        q, k, v = (x.view(x.shape[1], count, length, x.shape[3]).transpose(0, 1) for x in qkv)
        mask = _window(length, sliding_window, q.device) if sliding_window and length > sliding_window else None
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shared
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).unsqueeze(0), None


def _cut(x: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return [x] if len(sizes) == 1 else x.split(sizes, dim=2)  # type: ignore[no-untyped-call]


def _window(length: int, window: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


AttentionInterface.register(NAME, packed_attention)
