"""Attention over packed sequences: many sequences in one row of tokens, without attention between them.

Segments of equal length are a batch to the model's own attention function (transformers' sdpa, or the eager one of the
model's module), which gets the mask that the model itself makes for that length. So windows, chunks, soft caps, sinks
and scalings are the model's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from sealkit.errors import InvalidModel

_PREFIX = "seal_packed_"
_MASKS: dict[str, Callable[..., Tensor | None]] = {"sdpa": sdpa_mask, "eager": eager_mask}
"""Kinds of attention, and the functions that make their masks."""
_PASSED = ("scaling", "dropout", "softcap", "s_aux", "is_causal")
"""Options of the model's attention that do not depend on which tokens are in the row."""
_UNUSED = {
    "sliding_window",  # in the mask already
    "position_ids",
    "cache_position",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "logits_to_keep",
}
"""Options that sdpa and eager attention do not read."""
_SHAPE = {"batch_size", "q_length", "kv_length", "q_offset", "kv_offset", "attention_mask"}


class PackedMask:
    """Takes the place of a mask in a packed row: the model's own mask for a length, made when it is needed. Raises
    InvalidModel if the model uses it as a tensor."""

    def __init__(self, make: Callable[[int], Tensor | None]) -> None:
        self._make = make
        self._made: dict[int, Tensor | None] = {}

    def of(self, length: int) -> Tensor | None:
        """For sequences of `length`, [1, 1, length, length]; None: the attention is plainly causal."""
        if length not in self._made:
            self._made[length] = self._make(length)
        return self._made[length]

    def _refuse(self, *_: object) -> NoReturn:
        raise InvalidModel("it computes with its attention mask, which packed sequences do not have")

    __getattr__ = __getitem__ = __add__ = __radd__ = _refuse


def packed_implementation(model: PreTrainedModel) -> str:
    """The name of the registered attention with which `model` takes packed rows: inputs [1, tokens], and
    `segment_lengths` as an argument of its forward. Raises InvalidModel if its own is neither sdpa nor eager."""
    kind = model.config._attn_implementation
    if kind not in _MASKS:
        raise InvalidModel(f"it was loaded with the attention {kind!r}; load it with sdpa or eager")
    return f"{_PREFIX}{kind}"


def packed_attention(
    kind: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PackedMask | None,
    *,
    segment_lengths: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention of `module`, whose kind is `kind`, within each segment. `query` [1, heads, tokens, dim],
    `key` and `value` [1, kv heads, tokens, dim]; `segment_lengths` sum to `tokens`. Neighbouring segments of equal
    length are computed in one call.

    Returns [1, tokens, heads, dim], as transformers' attention interface requires. Raises InvalidModel for what it
    cannot pack, by name.
    """
    if segment_lengths is None:
        raise InvalidModel("its layers do not hand the lengths of the packed sequences on to their attention")
    if unknown := sorted(options.keys() - {*_PASSED, *_UNUSED}):
        raise InvalidModel(f"its attention takes {', '.join(unknown)}, which cannot be packed")
    if not isinstance(attention_mask, PackedMask | None):
        raise InvalidModel("it makes its attention mask itself, not with transformers' functions")
    attend = sdpa_attention_forward if kind == "sdpa" else _eager_attention(module)
    passed = {name: options[name] for name in _PASSED if name in options}
    if query.shape[2] != key.shape[2]:
        raise InvalidModel("its queries attend to other keys than those of their own tokens")
    runs = [(length, len(list(group))) for length, group in groupby(segment_lengths)]
    sizes = [length * count for length, count in runs]
    outputs = []
    for (length, count), *qkv in zip(runs, *(_cut(x, sizes) for x in (query, key, value)), strict=True):
        q, k, v = (x.view(x.shape[1], count, length, x.shape[3]).transpose(0, 1) for x in qkv)
        mask = None if attention_mask is None else attention_mask.of(length)
        outputs.append(attend(module, q, k, v, mask, **passed)[0].flatten(0, 1))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).unsqueeze(0), None


def _eager_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The eager attention function of the file that defines the class of `module`."""
    attend: Callable[..., tuple[Tensor, Any]] | None = getattr(
        inspect.getmodule(type(module)), "eager_attention_forward", None
    )
    if attend is None:
        raise InvalidModel(f"its eager attention, in {type(module).__name__}, is not a function of its module")
    return attend


def _cut(x: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return [x] if len(sizes) == 1 else x.split(sizes, dim=2)  # type: ignore[no-untyped-call]


def _packed_mask(kind: str, **options: Any) -> PackedMask:
    """What transformers' mask functions return for a packed row. Of the `options` only those that do not depend on the
    row's shape are kept."""
    kept = {name: value for name, value in options.items() if name not in _SHAPE}

    def of(length: int) -> Tensor | None:
        return _MASKS[kind](batch_size=1, q_length=length, kv_length=length, q_offset=0, kv_offset=0, **kept)

    return PackedMask(of)


for _kind in _MASKS:
    AttentionInterface.register(f"{_PREFIX}{_kind}", partial(packed_attention, _kind))
    AttentionMaskInterface.register(f"{_PREFIX}{_kind}", partial(_packed_mask, _kind))
