"""Directions for a fixed A: where, in the input of each layer, a job's sequences differ most from its anchors.

Let S be the second moment of a layer's inputs on the sequences, and R that on the anchors. The rows of A span the
directions v with the largest v'Sv / v'(R + floor)v, the leading generalised eigenvectors. B, which alone is trained,
then sees what is new in the sequences and little of anything else. Others choose A by R alone, for the same reason
(CorDA, arXiv 2406.05223; LoRA-Null, arXiv 2503.02659).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sealkit.backends.lora import LoraWeights
from sealkit.errors import NonFiniteLoss
from sealkit.types import LoraConfig
from trainer_svc.adapter import FrozenAdapter
from trainer_svc.encoding import Encoded
from trainer_svc.packed import PackedModel
from trainer_svc.plan import generator_of
from trainer_svc.step import Part

FLOOR = 0.05
"""What is added to R in every direction, as a share of its mean eigenvalue. A smaller one prefers directions that the
anchors hardly use, and in which the sequences have little either."""
ANCHOR_DIRECTIONS = 128
"""Leading eigenvectors of R that are kept; the rest of R counts as equal in all other directions."""
ANCHOR_ROWS = 1024
"""At most this many tokens of the anchors are used for R, spread evenly over all."""
_OVERSAMPLING, _ITERATIONS = 8, 3
_NARROW = 256
"""Inputs up to this width are decomposed exactly, in milliseconds."""


class Whitening(NamedTuple):
    """(R + floor)^-1/2 as `basis` [in, directions], `gains` [directions] and the factor `rest` of all else."""

    basis: Tensor
    gains: Tensor
    rest: float

    @classmethod
    def of(cls, rows: Tensor) -> Whitening:
        """Of the inputs [rows, in] on the anchors."""
        width = rows.shape[1]
        moments, basis = leading(rows, min(ANCHOR_DIRECTIONS, width))
        total = float(rows.square().sum()) / len(rows)
        left = max(0.0, total - float(moments.sum())) / max(1, width - len(moments))
        floor = max(FLOOR * total / width, left)
        return cls(basis, (moments + floor).rsqrt() - floor**-0.5, floor**-0.5)

    def __call__(self, rows: Tensor) -> Tensor:
        """[rows, in] → [rows, in]"""
        return (rows @ self.basis * self.gains) @ self.basis.T + rows * self.rest


class Directions:
    """Makes initial weights with a fixed A. The whitening of the last two sets of anchors is cached."""

    def __init__(self, model: PackedModel) -> None:
        self._model = model
        self._known: OrderedDict[object, tuple[tuple[int, ...], dict[int, Whitening]]] = OrderedDict()

    def weights(
        self,
        lora: LoraConfig,
        linears: Mapping[str, nn.Linear],
        sequences: Sequence[Encoded],
        anchors: tuple[Encoded, ...],
        policy: tuple[str, FrozenAdapter | None] = ("", None),
        *,
        step_tokens: int = 1024,
    ) -> tuple[LoraWeights, int]:
        """Initial weights of an adapter on these linears, with B zero, and the number of tokens that were read for
        them. `policy`: digest and weights of the adapter below. Rows of A are scaled so that on the sequences their
        outputs are as large as with PEFT's initialisation; rows without a direction left are zero. Raises
        NonFiniteLoss; may raise torch.OutOfMemoryError."""
        digest, below = policy
        key, read = (anchors, digest), 0
        if key not in self._known:
            shared = _shared(anchors)
            rows, read = self._rows(anchors, shared, below, step_tokens, ANCHOR_ROWS)
            self._known[key] = shared, {group: Whitening.of(some) for group, some in rows.items()}
            while len(self._known) > 2:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        shared, whitenings = self._known[key]
        found, tokens = self._rows(sequences, shared, below, step_tokens, None)
        tensors = {}
        for group, paths in enumerate(self._model.groups):
            adapted = [path for path in paths if path in linears]
            if not adapted:
                continue
            a = _contrasting(found[group], whitenings[group], lora.rank)
            for path in adapted:
                b = torch.zeros(linears[path].out_features, lora.rank, dtype=a.dtype)
                tensors[path] = (a.clone(), b)
        return LoraWeights(lora, tensors), read + tokens

    def _rows(
        self,
        sequences: Sequence[Encoded],
        shared: tuple[int, ...],
        below: FrozenAdapter | None,
        step_tokens: int,
        limit: int | None,
    ) -> tuple[dict[int, Tensor], int]:
        """The inputs of each group of linears at the tokens behind `shared`, at most `limit` of them, and the number of
        tokens read. The labels of a sequence always count, its first token never."""
        places = [
            range(min(max(1, _common(sequence.ids, shared)), sequence.labels[0]), len(sequence.ids))
            for sequence in sequences
        ]
        every = -(-sum(map(len, places)) // limit) if limit else 1
        found: dict[int, list[Tensor]] = {}
        seen = 0
        for batch in _batches([len(sequence.ids) for sequence in sequences], step_tokens):
            starts, chosen = 0, []
            for index in batch:
                for place in places[index]:
                    if seen % every == 0:
                        chosen.append(starts + place)
                    seen += 1
                starts += len(sequences[index].ids)
            of = torch.tensor(chosen, dtype=torch.long, device=self._model.device)

            def see(group: int, rows: Tensor, of: Tensor = of) -> None:
                found.setdefault(group, []).append(rows.index_select(0, of.to(rows.device)))

            self._model.inputs(Part(tuple(sequences[index] for index in batch), policy=below), see)
        exact = torch.float64 if self._model.dtype == torch.float64 else torch.float32
        rows = {group: torch.cat(some).to(exact) for group, some in found.items()}
        if not all(bool(values.isfinite().all()) for values in rows.values()):
            raise NonFiniteLoss("the model's layers have inputs that are not finite, so no directions can be chosen")
        return rows, sum(len(sequence.ids) for sequence in sequences)


def leading(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues, descending, and eigenvectors [in, count] of the second moment of `rows` [rows,
    in]: exact for narrow inputs, else by subspace iteration from a fixed start."""
    width = rows.shape[1]
    size = count + _OVERSAMPLING
    if width <= max(_NARROW, size):
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        return values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    start = torch.randn(width, size, generator=generator_of("leading directions", width, size), dtype=rows.dtype)
    basis = torch.linalg.qr(start.to(rows.device))[0]
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis))[0]
    inner = rows @ basis
    values, vectors = torch.linalg.eigh(inner.T @ inner / len(rows))
    return values.flip(0)[:count].clamp(min=0), (basis @ vectors).flip(1)[:, :count]


def _contrasting(rows: Tensor, whiten: Whitening, rank: int) -> Tensor:
    """A [rank, in], on the CPU, from the inputs [rows, in] on the sequences."""
    count = min(rank, *rows.shape)
    _, vectors = leading(whiten(rows), count)
    a = whiten(vectors.T)
    size = (rows @ a.T).square().mean(0).sqrt()
    usual = (rows.square().sum(1).quantile(0.5) / (3 * rows.shape[1])).sqrt()  # PEFT's A is uniform in ±1/sqrt(in)
    a *= torch.where(size > 0, usual / size, torch.zeros_like(size))[:, None]
    return nn.functional.pad(a, (0, 0, 0, rank - count)).cpu()


def _shared(anchors: Sequence[Encoded]) -> tuple[int, ...]:
    """What all begin with: the start of the chat template."""
    first = anchors[0].ids
    return first[: min(_common(first, other.ids) for other in anchors)]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _batches(lengths: Sequence[int], step_tokens: int) -> Iterator[list[int]]:
    """Indices in order, in batches of at most `step_tokens` tokens or one sequence."""
    batch: list[int] = []
    for index, length in enumerate(lengths):
        if batch and sum(lengths[i] for i in batch) + length > step_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
