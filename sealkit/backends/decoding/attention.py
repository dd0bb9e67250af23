"""Attention over the row cache: the model's own, with the mask that the model itself makes, at the positions of each
row. So windows, chunks, soft caps and sinks are the model's own, in rows of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, eager_mask, sdpa_mask

_MASKS: dict[str, Callable[..., Tensor | None]] = {"sdpa": sdpa_mask, "eager": eager_mask}
BY_ROW = "seal_rows"
"""The attention that is called row by row, if it is sdpa."""


@dataclass(frozen=True, eq=False)
class Places:
    """What the cache tells a mask function: the `positions` [n, s] of the new tokens of each row; `by_row`: whether
    attention is called row by row, on the row's own keys."""

    positions: Tensor
    by_row: bool = False


def row_mask(
    kind: str,
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Places | int = 0,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Tensor | None:
    """Additive, [n, 1, s, keys]: what `mask_function` shows each row's tokens of the keys; None: all that attention
    gets. Without places, what transformers makes for this `kind` of attention."""
    if not isinstance(q_offset, Places):
        sizes = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length}
        return _MASKS[kind](
            **sizes, q_offset=q_offset, kv_offset=kv_offset, mask_function=mask_function, dtype=dtype, **options
        )
    if q_offset.by_row and mask_function is causal_mask_function:
        return None
    positions, device = q_offset.positions, q_offset.positions.device
    rows = torch.arange(batch_size, device=device)[:, None, None, None]
    keys = torch.arange(kv_length, device=device)[None, None, None, :]
    shown = mask_function(rows, torch.zeros_like(rows), positions[:, None, :, None], keys)
    shown = shown.expand(batch_size, 1, q_length, kv_length)
    return torch.zeros(shown.shape, dtype=dtype, device=device).masked_fill_(~shown, float("-inf"))


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_ends: Sequence[int] | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token a row, `query` [n, heads, 1, dim], each on the first `row_ends[i]` of its own keys and
    values [n, kv heads, places, dim]; none for 0. Without `row_ends`, ordinary attention. Returns [n, 1, heads,
    dim]."""
    if row_ends is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    out = query.new_zeros((len(query), 1, query.shape[1], value.shape[-1]))
    shared = query.shape[1] != key.shape[1]
    queries, keys, values = (torch.split(whole, 1) for whole in (query, key, value))
    for row, end in enumerate(row_ends):
        if end:
            k, v = keys[row].narrow(2, 0, end), values[row].narrow(2, 0, end)
            mask = None if attention_mask is None else attention_mask[row : row + 1, :, :, :end]
            attended = scaled_dot_product_attention(
                queries[row], k, v, attn_mask=mask, scale=scaling, enable_gqa=shared
            )
            out[row] = attended.view_as(out[row : row + 1])[0]
    return out, None


for _kind in _MASKS:
    AttentionMaskInterface.register(_kind, partial(row_mask, _kind))
AttentionInterface.register(BY_ROW, row_attention)
AttentionMaskInterface.register(BY_ROW, partial(row_mask, "sdpa"))
