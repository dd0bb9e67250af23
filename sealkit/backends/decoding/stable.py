"""Batch-invariant decoding: bitwise the same in any batch, in any dtype.

The rounding of a matrix product depends on its shape, so here every shape is a function of the row alone:

* prompts are prefilled one at a time, in chunks of a fixed length that start at its multiples; so a prefix has the
  same keys and values in every computation, and prefixes are still shared, rounded down to such a multiple;
* a decoding step passes a fixed number of rows, padded, through the linears and norms, where rows do not interact;
* attention is called row by row, on the row's own keys;
* adapters are added in products of a fixed number of adapters and rows each, the policy's before the trial's.

A fixed shape does not guarantee that a product treats all its rows alike. That is tested at the start, on the model
itself. If it does not (or rows interact, as in a mixture of experts), rows are decoded one by one, which is slow but
always exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import torch
from torch import Tensor

from sealkit.backends.decoding.attention import BY_ROW
from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.lora import Block
from sealkit.backends.decoding.prefill import Joiner
from sealkit.backends.decoding.row import Row
from sealkit.backends.models import LoadedModel
from sealkit.errors import InvalidModel

_log = structlog.get_logger(__name__)
_PIECE = 64
_TILE = 32
"""Rows of a decoding step. With SmolLM2-135M on a CPU two steps of 16 take 1.5 times as long as one of 32."""
_ALONE = Block(adapters=1, rows=1)


class StableEngine(Engine):
    """An engine whose rows are bitwise the same alone and in any batch, on one machine with one number of threads.
    Raises InvalidModel if the model's attention is not torch's own."""

    def __init__(self, loaded: LoadedModel, *, max_rows: int, max_rank: int) -> None:
        if loaded.model.config._attn_implementation not in ("sdpa", BY_ROW):
            raise InvalidModel(
                f"{type(loaded.model).__name__} has its own attention, so its texts may depend on the batch; set "
                "deterministic to off"
            )
        self._tile, self._block = _TILE, Block(8, 8 if loaded.model.device.type == "cuda" else 4)
        super().__init__(
            loaded,
            max_rows=max_rows,
            max_rank=max_rank,
            places=-(-max_rows // self._tile) * self._tile,
            adapter_slots=self._block.adapters,
            by_row=True,
        )
        if not self._treats_rows_alike():
            _log.warning("rows_are_decoded_one_by_one", model=loaded.info.name)
            self._tile, self._block = 1, _ALONE

    def _plan(self, joiners: Sequence[Joiner], running: Sequence[tuple[int, Row]]) -> list[list[Joiner]]:
        alone = [[joiner] for group in super()._plan(joiners, running) for joiner in group]
        for (joiner,) in alone:
            joiner.shared -= joiner.shared % _PIECE
        return alone

    def _read(self, group: Sequence[Joiner]) -> Tensor:
        (joiner,) = group
        tokens = joiner.row.prompt
        for start in range(joiner.shared, len(tokens), _PIECE):
            piece = tokens[start : start + _PIECE]
            logits = self._logits([joiner.slot], [joiner.row.adapters], [piece], [start], block=_ALONE, width=_PIECE)
        return logits

    def _decode(self, rows: Sequence[Row]) -> None:
        chosen = set(rows)
        for first in range(0, len(self._slots), self._tile):
            members = self._slots[first : first + self._tile]
            read = [row if row in chosen else None for row in members]
            here = [row for row in read if row is not None]
            if not here:
                continue
            with self._charging(here, [1] * len(here)):
                logits = self._tile_logits(first, members, read)
                present = [place for place, row in enumerate(read) if row is not None]
                self._accept([first + place for place in present], here, logits[present])

    def _tile_logits(self, first: int, members: Sequence[Row | None], read: Sequence[Row | None]) -> Tensor:
        """Logits [tile, vocabulary] of the rows at the indices from `first` on; undefined for `members` that are not
        `read`: they write to the cache where they will write again before they read it."""
        empty = [None] * (self._tile - len(members))
        tile, read = [*members, *empty], [*read, *empty]
        return self._logits(
            list(range(first, first + self._tile)),
            [row.adapters if row else () for row in read],
            [[row.tokens[-1] if row else 0] for row in read],
            [row.length if row else 0 for row in tile],
            block=self._block,
            row_ends=[row.length + 1 if row else 0 for row in read],
        )

    @torch.inference_mode()
    def _treats_rows_alike(self) -> bool:
        """Whether equal rows give equal logits at every index of the batch, also beside other rows."""
        places, vocabulary = list(range(self._tile)), self._model.config.get_text_config().vocab_size

        def logits(ids: list[int]) -> Tensor:
            nobody, ends = [()] * len(ids), [1] * len(ids)
            return self._logits(places, nobody, [[i] for i in ids], [0] * len(ids), block=self._block, row_ends=ends)

        token = 7 % vocabulary
        alike = logits([token] * self._tile)
        mixed = logits([token if place % 5 == 3 else (place * 7919 + 11) % vocabulary for place in places])
        return bool((alike == alike[0]).all()) and bool((mixed[3::5] == alike[0]).all())
