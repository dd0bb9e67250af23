"""Soft targets: the distributions of the frozen model below an adapter, computed once for each sequence and cached.

A sequence's targets depend on its tokens, its label positions, the policy below and the form of the targets, and not on
trained weights. So they are computed when a job begins, in packed forward passes, and cached for later jobs: anchors
are the same for all trials of a run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from trainer_svc.adapter import FrozenAdapter
from trainer_svc.encoding import Encoded
from trainer_svc.loss import Soft
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part


class Ask(NamedTuple):
    """The teacher's input for a sequence. `policy`: digest of the frozen adapter, empty for the bare base model;
    `top_k`: the form of the targets, 0 for the full distribution."""

    sequence: Encoded
    policy: str
    top_k: int


class Teacher:
    """Soft targets from the frozen model, with an LRU cache of at most `limit` bytes."""

    def __init__(self, model: PackedModel, *, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._kept: OrderedDict[Ask, Soft] = OrderedDict()
        self.bytes = 0
        """Bytes in the cache."""

    def targets(
        self, asks: Sequence[Ask], policies: Mapping[str, FrozenAdapter | None], *, step_tokens: int
    ) -> tuple[list[Soft], int]:
        """The soft targets of each, in order, and the number of tokens that were read for them; `policies` by digest.
        Missing ones are computed, `step_tokens` tokens at a time. May raise torch.OutOfMemoryError."""
        found = {ask: self._kept[ask] for ask in asks if ask in self._kept}
        missing = list(dict.fromkeys(ask for ask in asks if ask not in found))
        for batch in _batches(missing, step_tokens):
            parts = [Part((ask.sequence,), policy=policies[ask.policy]) for ask in batch]
            soft = self._model.soft_targets(parts, batch[0].top_k)
            found.update(zip(batch, soft, strict=True))
        for ask in missing:
            self._keep(ask, found[ask])
        for ask in found:
            if ask in self._kept:
                self._kept.move_to_end(ask)
        return [found[ask] for ask in asks], sum(len(ask.sequence.ids) for ask in missing)

    def _keep(self, ask: Ask, soft: Soft) -> None:
        size = size_of(soft)
        if size > self._limit:
            return
        self._kept[ask] = soft
        self.bytes += size
        while self.bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= size_of(dropped)


def size_of(soft: Soft) -> int:
    """Bytes of some rows' targets."""
    return sum(values.element_size() * values.numel() for values in soft)


def _batches(asks: Sequence[Ask], step_tokens: int) -> Iterator[list[Ask]]:
    """Batches of asks of one form and one policy, of at most `step_tokens` tokens."""
    batch: list[Ask] = []
    tokens = 0
    for ask in sorted(asks, key=lambda ask: (ask.top_k, ask.policy, len(ask.sequence.ids))):
        more = len(ask.sequence.ids)
        if batch and (batch[0].top_k != ask.top_k or tokens + more > step_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(ask)
        tokens += more
    if batch:
        yield batch
