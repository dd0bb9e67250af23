"""The KV cache of all rows in one block of memory, with the cache interface of transformers' decoders.

Rows are left-aligned: position p of a row is stored at index p. So rows of different length share a step behind one
mask, and a common prefix is copied from row to row unchanged. Growing, moving and copying are one tensor operation for
all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from sealkit.backends.decoding.attention import Places
from sealkit.errors import InvalidModel

_BLOCK = 64
_GROWTH = 1.5


class RowCache(Cache):
    """Keys and values, each [layers, rows, places, heads, dim]; `select` says which rows the next forward reads."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        """Infers the shapes from one token. Raises InvalidModel if the model caches more than keys and values."""
        super().__init__(layers=[])
        keys, values = _probe(model)
        self._places = _BLOCK
        self._keys = keys.new_zeros((keys.shape[0], rows, _BLOCK, *keys.shape[1:]))
        self._values = values.new_zeros((values.shape[0], rows, _BLOCK, *values.shape[1:]))
        self._split()
        self._slots = torch.empty(0, dtype=torch.long)
        self._where = torch.empty(0, dtype=torch.long)
        self._read: int | None = None
        self._range: tuple[int, int] | None = None
        self._query_length = 0
        self._query_places: Places | None = None

    def bytes_of(self, places: int) -> int:
        """Memory of all rows with this many places each."""
        return (self._keys[:, :, 0].nbytes + self._values[:, :, 0].nbytes) * places

    def select(self, slots: Sequence[int], positions: Tensor, read: int | None, *, by_row: bool = False) -> None:
        """The next forward writes `positions` [n, s] of the rows in `slots` [n] and reads the first `read` places of
        them; None: it reads only what it writes (nothing was cached before). `by_row`: its attention is called row by
        row."""
        device = self._keys.device
        self._slots = torch.tensor(slots, device=device)
        self._range = (slots[0], slots[-1] + 1) if list(slots) == list(range(slots[0], slots[-1] + 1)) else None
        self._where = (self._slots[:, None] * self._places + positions).flatten()
        self._read = read
        self._query_length = positions.shape[1]
        self._query_places = None if read is None else Places(positions, by_row)

    def reserve(self, places: int) -> None:
        """Grows the block to hold positions below `places`."""
        if places <= self._places:
            return
        grown = -(-max(places, int(self._places * _GROWTH)) // _BLOCK) * _BLOCK
        # Zeros, because memory that was never written may hold NaN, and 0 · NaN behind the mask is NaN.
        for name in ("_keys", "_values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((*old.shape[:2], grown, *old.shape[3:]))
            new[:, :, : self._places] = old
            setattr(self, name, new)
        self._places = grown
        self._split()

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` places of row `source` to row `target`."""
        self._keys[:, target, :length] = self._keys[:, source, :length]
        self._values[:, target, :length] = self._values[:, source, :length]

    def clear(self, slot: int) -> None:
        """Zeroes a row, so that its old values cannot leak through a mask."""
        self._keys[:, slot].zero_()
        self._values[:, slot].zero_()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes states [n, heads, s, dim] of a layer; returns the keys or values that attention reads, [n, heads,
        read, dim]."""
        keys, values = self._layers[layer_idx]
        for whole, new in ((keys, key_states), (values, value_states)):
            whole.flatten(0, 1).index_copy_(0, self._where, new.transpose(1, 2).flatten(0, 1))
        if self._read is None:
            return key_states, value_states
        return self._gather(keys), self._gather(values)

    def get_mask_sizes(self, query_length: int, _layer_idx: int = 0) -> tuple[int, int]:
        return (self._read or query_length), 0

    def get_query_offset(self, _layer_idx: int = 0) -> Places | int:  # type: ignore[override]
        """Rows of different length have no common offset: `row_mask` gets the positions."""
        return self._query_places or 0

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        return (self._read or self._query_length) - self._query_length

    def _gather(self, whole: Tensor) -> Tensor:
        if self._range is not None:
            return whole[self._range[0] : self._range[1], : self._read].transpose(1, 2)
        return whole[:, : self._read].index_select(0, self._slots).transpose(1, 2)

    def _split(self) -> None:
        self._layers = list(zip(self._keys.unbind(0), self._values.unbind(0), strict=True))


def _probe(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Empty keys and values of a model, [layers, heads, dim]. Raises InvalidModel."""
    cache = DynamicCache()
    layers: list[Any] = cache.layers
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    try:
        with torch.inference_mode():
            model(input_ids=token, past_key_values=cache, use_cache=True)
        keys = torch.stack([layer.keys[0, :, 0] for layer in layers])
        values = torch.stack([layer.values[0, :, 0] for layer in layers])
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, TypeError, ValueError, LookupError, RuntimeError) as fault:
        raise InvalidModel(
            f"the cache of a row needs a key and a value of one shape in every layer ({fault}); take a plain decoder "
            "such as Llama or Qwen2, or decode with vLLM"
        ) from fault
    if len(layers) != model.config.get_text_config().num_hidden_layers:
        raise InvalidModel("not every layer caches keys and values")
    return keys, values
