"""The engine step: rows join, are prefilled, decode together, and leave. Runs in one thread, without queue or event
loop.

Exactness: rows are left-aligned, each token sees what the model's own mask shows it, and logits are taken at each
row's own last token. So a row's logits are those of the model run on the row alone, up to the rounding of a matrix
product with another number of rows (about 1e-6 in float32: greedy and seeded texts are the same). This is checked at
the start, on the model itself.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sealkit.backends.comparison import check_same, own_logits, probes, refusing, short_windows
from sealkit.backends.decoding.attention import BY_ROW
from sealkit.backends.decoding.cache import RowCache
from sealkit.backends.decoding.lora import Adapter, Block, RowLora
from sealkit.backends.decoding.prefill import Joiner, plan
from sealkit.backends.decoding.row import Row
from sealkit.backends.decoding.sampling import next_tokens
from sealkit.backends.lora import LoraWeights, find_targets, target_names
from sealkit.backends.models import LoadedModel
from sealkit.backends.reasoning import ReasoningReader
from sealkit.errors import InvalidModel
from sealkit.observability.metrics import DECODE_REUSED_TOKENS
from sealkit.types import LoraConfig

_LONGEST = 24
"""Tokens of the longest text in the check at the start."""
_PIECES = (6, 4, 3, 2, 1, 0)
"""The pieces in which it reads a text: each up to so many tokens before the end."""


@dataclass(frozen=True)
class Left:
    """A row that left the batch. `broken`: its logits were not finite, so there is no text."""

    row: Row
    broken: bool = False


class Engine:
    """Decodes up to `max_rows` rows at once, with `places` cache positions per row and at least `adapter_slots` slots
    for the adapters of one rank. `by_row`: attention of new tokens is called row by row. Raises InvalidModel if rows do
    not get what the model gives each of them alone."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_rows: int,
        max_rank: int,
        places: int | None = None,
        adapter_slots: int = 1,
        by_row: bool = False,
    ) -> None:
        self._model = loaded.model
        self._last_position = loaded.info.context_length - 1
        what = "decoded with deterministic on" if by_row else "decoded"
        with refusing(loaded.model, what):
            texts = probes(loaded.model, _LONGEST)
            own = own_logits(loaded.model, texts)
        if loaded.model.device.type == "cpu":
            _transpose_weights(loaded.model)
        self._text_of = ReasoningReader(loaded.tokenizer).text
        self._end_ids = _end_ids(loaded)
        self._max_rank = max_rank
        self._slots: list[Row | None] = [None] * max_rows
        with refusing(loaded.model, what):
            self._cache = RowCache(loaded.model, places or max_rows)
        self._lora = RowLora(loaded.model, adapter_slots)
        self._last: Tensor | None = None
        self._tainted: set[int] = set()
        head: nn.Module | None = loaded.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if head is None:
            raise InvalidModel(f"{type(loaded.model).__name__} has no output head to decode with")
        head.register_forward_pre_hook(self._keep_last)
        with refusing(loaded.model, what):
            if by_row:
                loaded.model.config._attn_implementation = BY_ROW
            self._check_same(texts, own, by_row)

    @property
    def running(self) -> list[Row]:
        return [row for row in self._slots if row is not None]

    @property
    def join_rows(self) -> int:
        """How many rows should join together if that many wait: a pass over the weights costs the same for one row."""
        return max(1, len(self._slots) // 8)

    @property
    def free(self) -> int:
        return self._slots.count(None)

    def fits(self, row: Row, beside: Sequence[Row]) -> bool:
        """Whether the row's adapters fit now, next to those of the running rows and of `beside`."""
        running = [a for other in (*self.running, *beside) for a in other.adapters]
        return self._lora.room(row.adapters, running, self._max_rank)

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> list[Left]:
        """Prefills at most `free` rows and samples their first tokens; returns the rows that left already."""
        running = [(slot, row) for slot, row in enumerate(self._slots) if row is not None]
        empty = (slot for slot, row in enumerate(self._slots) if row is None)
        joiners = [Joiner(row, slot) for row, slot in zip(rows, empty, strict=False)]
        adapters = [a for row in rows for a in row.adapters]
        self._lora.place(adapters, [a for _, row in running for a in row.adapters])
        for joiner in joiners:
            self._slots[joiner.slot] = joiner.row
            if joiner.slot in self._tainted:
                self._cache.clear(joiner.slot)
                self._tainted.remove(joiner.slot)
        left = []
        for group in self._plan(joiners, running):
            for joiner in group:
                if joiner.shared:
                    self._cache.reserve(len(joiner.row.prompt))
                    self._cache.copy(joiner.donor, joiner.slot, joiner.shared)
                    DECODE_REUSED_TOKENS.inc(joiner.shared)
            members = [joiner.row for joiner in group]
            with self._charging(members, [len(joiner.rest) for joiner in group]):
                left += self._accept([joiner.slot for joiner in group], members, self._read(group))
        return left

    @torch.inference_mode()
    def step(self) -> list[Left]:
        """Samples one token for every running row; returns the rows that left."""
        self._compact()
        return self._decode()

    def drop(self, rows: Collection[Row]) -> None:
        """Drops rows whose callers have cancelled."""
        self._slots = [None if row in rows else row for row in self._slots]

    def forget(self, adapter: Adapter) -> None:
        """Frees an adapter that failed its verification."""
        self._lora.forget(adapter)

    @contextmanager
    def reading(self, rows: Sequence[tuple[Adapter, ...]]) -> Iterator[PreTrainedModel]:
        """The model outside the batch, for use between steps: row i of its input uses the adapters `rows[i]`."""
        running = [a for row in self.running for a in row.adapters]
        self._last = None
        with torch.inference_mode():
            self._lora.place([a for row in rows for a in row], running)
            self._lora.use(rows)
            try:
                yield self._model
            finally:
                self._lora.use([])

    def _compact(self) -> None:
        """Moves the last rows into gaps: contiguous rows are read in place, others would be copied at every step."""
        for hole in range(self._slots.count(None) and len(self.running)):
            if self._slots[hole] is None:
                last = max(slot for slot, row in enumerate(self._slots) if row is not None)
                row = self._slots[last]
                assert row is not None
                self._cache.copy(last, hole, row.length)
                self._slots[hole], self._slots[last] = row, None
                self._tainted.discard(hole)

    def _plan(self, joiners: Sequence[Joiner], running: Sequence[tuple[int, Row]]) -> list[list[Joiner]]:
        return plan(joiners, running)

    def _read(self, group: Sequence[Joiner]) -> Tensor:
        """Logits [n, vocabulary] after the prompts of `group`, whose shared prefixes are cached."""
        return self._logits(
            [j.slot for j in group], [j.row.adapters for j in group], [j.rest for j in group], [j.shared for j in group]
        )

    def _decode(self) -> list[Left]:
        rows = self.running
        slots = [slot for slot, row in enumerate(self._slots) if row is not None]
        with self._charging(rows, [1] * len(rows)):
            tokens = [[row.tokens[-1]] for row in rows]
            logits = self._logits(slots, [row.adapters for row in rows], tokens, [row.length for row in rows])
            return self._accept(slots, rows, logits)

    @contextmanager
    def _charging(self, rows: Sequence[Row], tokens: Sequence[int]) -> Iterator[None]:
        """Charges the block's time to the rows by their share of the `tokens`."""
        began = time.perf_counter()
        yield
        second = (time.perf_counter() - began) / sum(tokens)
        for row, count in zip(rows, tokens, strict=True):
            row.device_seconds += second * count

    def _logits(
        self,
        slots: Sequence[int],
        adapters: Sequence[tuple[Adapter, ...]],
        tokens: Sequence[list[int]],
        starts: Sequence[int],
        *,
        block: Block | None = None,
        width: int = 0,
        row_ends: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits [n, vocabulary] after `tokens` of each row, of which `starts` are cached already. The tokens are
        padded to `width` if that is more than the longest. With `row_ends`, attention is called row by row, on that
        many keys of each."""
        device = self._model.device
        width = max(width, *map(len, tokens))
        ids = torch.tensor([part + [0] * (width - len(part)) for part in tokens], device=device)
        positions = torch.tensor(starts, device=device)[:, None] + torch.arange(width, device=device)
        read = max(starts) + width if any(starts) else None
        self._cache.reserve(max(starts) + width)
        self._cache.select(slots, positions, read, by_row=row_ends is not None)
        self._lora.use(adapters, block)
        self._last = torch.tensor([len(part) - 1 for part in tokens], device=device) if width > 1 else None
        out = self._model(
            input_ids=ids,
            # Padding may go past the model's positions.
            position_ids=positions.clamp(max=self._last_position),
            past_key_values=self._cache,
            use_cache=True,
            **({} if row_ends is None else {"row_ends": row_ends}),
        )
        self._lora.use([])
        logits: Tensor = out.logits[:, -1]
        return logits

    @torch.inference_mode()
    def _check_same(self, texts: Sequence[list[int]], own: Sequence[Tensor], by_row: bool) -> None:
        """Raises InvalidModel if rows of a batch do not get `own`, the logits [tokens, vocabulary] of each text alone;
        or if a row's adapter changes the rows beside it."""
        whole, beginning, other = zip(texts, own, strict=True)
        some = [whole, other][: len(self._slots)]
        check_same(
            self._in_pieces([ids for ids, _ in some], [()] * len(some), by_row),
            [logits[[len(ids) - left - 1 for left in _PIECES]] for ids, logits in some],
        )
        adapter = _random_adapter(self._model)
        if len(self._slots) == 1 or adapter is None:
            return
        self._lora.place([adapter], [])
        pair, on_top = [beginning[0], other[0]], [(adapter,), ()]
        alone = [self._in_pieces([ids], [adapters], by_row)[0] for ids, adapters in zip(pair, on_top, strict=True)]
        check_same(self._in_pieces(pair, on_top, by_row), alone)
        self._lora.forget(adapter)

    def _in_pieces(
        self, texts: Sequence[list[int]], adapters: Sequence[tuple[Adapter, ...]], by_row: bool
    ) -> list[Tensor]:
        """Reads texts in the first rows, in pieces and then token by token; the logits [pieces, vocabulary] of each."""
        slots, starts = list(range(len(texts))), [0] * len(texts)
        found = []
        with short_windows(self._model):
            for left in _PIECES:
                ends = [len(ids) - left for ids in texts]
                tokens = [ids[start:end] for ids, start, end in zip(texts, starts, ends, strict=True)]
                row_ends = ends if by_row and starts[0] + 1 == ends[0] else None
                found.append(self._logits(slots, adapters, tokens, starts, row_ends=row_ends).clone())
                starts = ends
        return list(torch.stack(found, 1))

    def _accept(self, slots: Sequence[int], rows: Sequence[Row], logits: Tensor) -> list[Left]:
        """Samples each row's next token; returns the rows that end with it."""
        left = []
        for slot, row, token in zip(slots, rows, next_tokens(logits, rows), strict=True):
            if token is not None:
                row.accept(token, self._text_of, self._end_ids)
            if token is None or row.finish_reason is not None:
                self._slots[slot] = None
                left.append(Left(row, broken=token is None))
            if token is None:
                self._tainted.add(slot)  # zeroed when it is reused: rows of this pass may still copy from it
        return left

    def _keep_last(self, _head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hook before the output head: keeps only each row's last token, [n, s, hidden] → [n, 1, hidden]."""
        if self._last is None:
            return None
        hidden = args[0]
        return (hidden[torch.arange(len(hidden), device=hidden.device), self._last, None], *args[1:])


def _random_adapter(model: PreTrainedModel) -> Adapter | None:
    """An adapter on all linears of the model, if it has any."""
    draw = torch.Generator().manual_seed(0)
    linears = find_targets(model, names := target_names(model))
    tensors = {
        path: (
            torch.randn(1, linear.in_features, generator=draw) / linear.in_features**0.5,
            torch.randn(linear.out_features, 1, generator=draw) / linear.out_features**0.5,
        )
        for path, linear in linears.items()
    }
    if not tensors:
        return None
    weights = LoraWeights(LoraConfig(rank=1, alpha=1, target_modules=names), tensors)
    return Adapter.of("", weights, model.dtype)


def _end_ids(loaded: LoadedModel) -> frozenset[int]:
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, loaded.tokenizer.eos_token_id) if i is not None)


def _transpose_weights(model: PreTrainedModel) -> None:
    """Stores the weights of the linears with the input dimension outermost, values and shapes unchanged: on a CPU
    products with few rows are up to a fifth faster. The output head is left: it may be tied to the embedding, which is
    read by row."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.data = module.weight.data.T.contiguous().T
