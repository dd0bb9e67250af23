"""The engine step: rows join, are prefilled, decode together, and leave. Runs in one thread, without queue or event
loop.

Exactness: rows are left-aligned, each token sees what the model's own mask shows it, and logits are taken at each
row's own last token. So a row's logits are those of the model run on the row alone, up to the rounding of a matrix
product with another number of rows (about 1e-6 in float32: greedy and seeded texts are the same). This is checked at
the start, on the model itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
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
from sealkit.errors import FailedPrecondition, GpuMemory, InvalidModel, SealError
from sealkit.observability.metrics import DECODE_REUSED_TOKENS
from sealkit.types import LoraConfig

_LONGEST = 24
"""Tokens of the longest text in the check at the start."""
_PIECES = (6, 4, 3, 2, 1, 0)
"""The pieces in which it reads a text: each up to so many tokens before the end."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Left:
    """A row that left the batch. `fault`: why it has no text."""

    row: Row
    fault: SealError | None = None


class Engine:
    """Decodes up to `max_rows` rows at once, with `places` cache positions per row and at least `adapter_slots` slots
    for the adapters of one rank. `by_row`: attention of new tokens is called row by row. Raises InvalidModel if rows do
    not get what the model gives each of them alone.

    A row that the model fails on alone leaves with that fault, and the others go on. `admit` and `step` raise only if
    the model no longer works at all.
    """

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
        self._end_ids = loaded.end_ids
        self._max_rank = max_rank
        self._slots: list[Row | None] = [None] * max_rows
        with refusing(loaded.model, what):
            self._cache = RowCache(loaded.model, places or max_rows)
        self._lora = RowLora(loaded.model, adapter_slots)
        self._left: list[Left] = []
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

    def cache_bytes(self, context: int) -> int:
        """Most memory of the cache: with as many tokens in every row as `context`."""
        return self._cache.bytes_of(context)

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
        with self._isolating(rows, self._join):
            self._join(rows)
        return self._leave()

    @torch.inference_mode()
    def step(self) -> list[Left]:
        """Samples one token for every running row; returns the rows that left."""
        self._compact()
        rows = self.running
        with self._isolating(rows, self._decode):
            self._decode(rows)
        return self._leave()

    def _join(self, rows: Sequence[Row]) -> None:
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
        for group in self._plan(joiners, running):
            for joiner in group:
                if joiner.shared:
                    self._cache.reserve(len(joiner.row.prompt))
                    self._cache.copy(joiner.donor, joiner.slot, joiner.shared)
                    DECODE_REUSED_TOKENS.inc(joiner.shared)
            members = [joiner.row for joiner in group]
            with self._charging(members, [len(joiner.rest) for joiner in group]):
                self._accept([joiner.slot for joiner in group], members, self._read(group))

    @contextmanager
    def _isolating(self, rows: Sequence[Row], work: Callable[[Sequence[Row]], None]) -> Iterator[None]:
        """If the block fails on `rows` together, does `work` for each that did not get its token, alone."""
        before, counts = self.running, [len(row.tokens) for row in rows]
        try:
            yield
            return
        except BaseException as fault:  # noqa: BLE001 - whatever one request raises, in libraries too, is its own
            _log.warning("rows_are_retried_alone", rows=len(rows), error=f"{type(fault).__name__}: {fault}"[:200])
        waiting = [row for row, count in zip(rows, counts, strict=True) if len(row.tokens) == count]
        self._remove([row for row in waiting if row not in before])
        for row in waiting:
            try:
                work([row])
            except BaseException as fault:  # noqa: BLE001 - as above
                _log.warning("row_failed_alone", prompt_tokens=len(row.prompt), exc_info=fault)
                self._remove([row])
                self._left.append(Left(row, self.fault_of_one(fault)))

    def _remove(self, rows: Sequence[Row]) -> None:
        """Takes rows out whose last pass failed: what it wrote to the cache is not to be read again."""
        for slot, row in enumerate(self._slots):
            if row in rows:
                self._slots[slot] = None
                self._tainted.add(slot)

    def _leave(self) -> list[Left]:
        left, self._left = self._left, []
        return left

    def drop(self, rows: Collection[Row]) -> None:
        """Drops rows whose callers have cancelled."""
        self._slots = [None if row in rows else row for row in self._slots]

    def forget(self, adapter: Adapter) -> None:
        """Frees an adapter that failed its verification."""
        self._lora.forget(adapter)

    def fault_of_one(self, fault: BaseException) -> SealError:
        """The error for a request that alone caused `fault`. Raises what the model raises if it no longer reads a plain
        token: after a fault of the device nothing works any more."""
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        with self.reading([()]) as model:
            token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
            model(input_ids=token, use_cache=False).logits.sum().item()
        return _error_for_caller(fault)

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

    def _decode(self, rows: Sequence[Row]) -> None:
        """Samples one token for each of these running rows, given in the order of their slots."""
        chosen = set(rows)
        slots = [slot for slot, row in enumerate(self._slots) if row in chosen]
        with self._charging(rows, [1] * len(rows)):
            tokens = [[row.tokens[-1]] for row in rows]
            logits = self._logits(slots, [row.adapters for row in rows], tokens, [row.length for row in rows])
            self._accept(slots, rows, logits)

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

    def _accept(self, slots: Sequence[int], rows: Sequence[Row], logits: Tensor) -> None:
        """Samples each row's next token; rows that end with it leave."""
        for slot, row, token in zip(slots, rows, next_tokens(logits, rows), strict=True):
            fault = _not_finite(row) if token is None else None
            if token is not None:
                try:
                    row.accept(token, self._text_of, self._end_ids)
                except BaseException as error:  # noqa: BLE001 - the row's own text or grammar, and no other's
                    fault = _error_for_caller(error)
            if fault is not None or row.finish_reason is not None:
                self._slots[slot] = None
                self._left.append(Left(row, fault))
            if token is None:
                self._tainted.add(slot)  # zeroed when it is reused: rows of this pass may still copy from it

    def _keep_last(self, _head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hook before the output head: keeps only each row's last token, [n, s, hidden] → [n, 1, hidden]."""
        if self._last is None:
            return None
        hidden = args[0]
        return (hidden[torch.arange(len(hidden), device=hidden.device), self._last, None], *args[1:])


def _not_finite(row: Row) -> SealError:
    names = ", ".join(adapter.digest[:12] for adapter in row.adapters) or "the base model"
    return FailedPrecondition(f"{names} gives logits that are not finite; nothing to sample")


def _error_for_caller(fault: BaseException) -> SealError:
    """The error that the caller gets for a fault that its request alone causes."""
    if isinstance(fault, SealError):
        return fault
    said = (str(fault).strip().splitlines() or [""])[0]
    if isinstance(fault, torch.OutOfMemoryError):
        return GpuMemory(f"the request alone does not fit in the device's memory: {said}; shorten its prompt")
    return FailedPrecondition(f"the model fails on this request alone: {type(fault).__name__}: {said}")


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


def _transpose_weights(model: PreTrainedModel) -> None:
    """Stores the weights of the linears with the input dimension outermost, values and shapes unchanged: on a CPU
    products with few rows are up to a fifth faster. The output head is left: it may be tied to the embedding, which is
    read by row."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.data = module.weight.data.T.contiguous().T
