"""One step of the engine as tensors: the rows of each job, and the adapters on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer_svc.adapter import FrozenAdapter, TrainableAdapter, Training
from trainer_svc.encoding import Encoded
from trainer_svc.linear import Applied
from trainer_svc.loss import Goal, Soft, States, joined
from trainer_svc.rows import Rows, alike

_STACKED_ON_CPU = 1 << 18
"""Largest adapter, in values, for which stacking several is faster on a CPU than applying them one by one. On a GPU
they are always stacked, because each kernel costs a launch."""


class Term(NamedTuple):
    """The loss terms of a sequence: `ce` and `kl` are the weights of both terms of each label token's loss; `soft` has
    a row for each label if `kl` is not 0. `reported`: whether the sequence is part of the reported loss."""

    ce: float
    kl: float = 0.0
    soft: Soft | None = None
    reported: bool = True


@dataclass(frozen=True)
class Part:
    """One job's part of a step: a micro-batch, its adapters and its loss.

    The gradient is that of Σ ce · CE + kl · KL over the label tokens, with the `terms` of their sequences; without
    terms that of the mean cross-entropy. `share`: the micro-batch's share of its optimiser step, by which the reported
    loss is divided. `generator` draws dropout."""

    sequences: tuple[Encoded, ...]
    trial: TrainableAdapter | None = None
    policy: FrozenAdapter | None = None
    terms: tuple[Term, ...] = ()
    share: float = 1.0
    generator: torch.Generator | None = None

    @property
    def tokens(self) -> int:
        return sum(len(sequence.ids) for sequence in self.sequences)

    @property
    def labels(self) -> int:
        return sum(len(sequence.labels) for sequence in self.sequences)

    @property
    def sequence_terms(self) -> tuple[Term, ...]:
        """The terms of each sequence."""
        return self.terms or (Term(1 / max(1, self.labels)),) * len(self.sequences)

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """Adapters of parts of the same kind can be applied in one product."""
        if self.trial is None:
            return id(self.policy), 0, 0, False
        return id(self.policy), id(self.trial.layout), self.trial.first, self.trial.config.dropout > 0


@dataclass(frozen=True)
class Block:
    """A part on `width` rows of a step; rows after its last token are padding. Causal attention hides the padding from
    real tokens, and it has no gradient."""

    part: Part
    start: int
    width: int


def lay_out(parts: Sequence[Part], device: torch.device) -> list[list[Block]]:
    """The parts in order: neighbours are of the same kind, and those in one list have the same width."""
    rows = 0
    runs = []
    ordered = sorted(parts, key=lambda part: (part.kind, part.tokens))
    for _, neighbours in groupby(ordered, key=lambda part: part.kind):
        some = list(neighbours)
        for cut in alike([part.tokens for part in some], padding=_side_by_side(some[0], device)):
            width = some[cut][-1].tokens
            runs.append([Block(part, rows + i * width, width) for i, part in enumerate(some[cut])])
            rows += width * len(runs[-1])
    return runs


def apply_adapters(runs: Sequence[Sequence[Block]], device: torch.device) -> tuple[list[Applied], list[Training]]:
    """The adapters on their rows, each policy's before the trials'; and those in training."""
    applied, trainings = [], []
    for policy, neighbours in groupby(runs, key=lambda run: run[0].part.policy):
        blocks = [block for run in neighbours for block in run]
        if policy is not None:
            rows = Rows(blocks[0].start, 1, sum(block.width for block in blocks))
            applied.append(Applied(rows, policy.stack))
    for run in runs:
        for some in [run] if _side_by_side(run[0].part, device) else [[block] for block in run]:
            adapters = [block.part.trial for block in some if block.part.trial is not None]
            if adapters:
                rows = Rows(some[0].start, len(some), some[0].width)
                trainings.append(training := Training.of(adapters))
                dropout, generator = adapters[0].config.dropout, some[0].part.generator
                applied.append(Applied(rows, training.stack, training.gradients, dropout, generator))
    return applied, trainings


def _side_by_side(part: Part, device: torch.device) -> bool:
    """Whether parts of this one's kind are padded to a common width and their adapters applied in one product."""
    if part.trial is None or part.trial.config.dropout:
        return False
    return device.type != "cpu" or part.trial.layout.size <= _STACKED_ON_CPU


@dataclass(frozen=True)
class Pack:
    """The concatenated sequences of a step: `inputs` of the model; `predictors` [labels] are the rows that predict
    `targets` [labels], in the order of `parts`."""

    parts: tuple[Part, ...]
    inputs: dict[str, Any]
    predictors: Tensor
    targets: Tensor

    def goals(self, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, Goal]]:
        """The objectives of the label rows: which rows (None: all), and their goal; one for each form of soft targets,
        so that rows without soft targets cost nothing extra."""
        device = self.targets.device
        terms = [
            (term, len(s.labels))
            for part in self.parts
            for s, term in zip(part.sequences, part.sequence_terms, strict=True)
        ]
        forms: dict[object, list[int]] = {}
        for index, (term, _) in enumerate(terms):
            forms.setdefault(_form(term), []).append(index)
        sizes = torch.tensor([size for _, size in terms])
        starts = sizes.cumsum(0) - sizes
        for form, members in forms.items():
            some, counts = [terms[i][0] for i in members], sizes[members]
            ce, kl = (
                torch.tensor(values, dtype=dtype).repeat_interleave(counts).to(device)
                for values in ([term.ce for term in some], [term.kl for term in some])
            )
            where = None
            if len(forms) > 1:
                where = torch.cat([torch.arange(int(starts[i]), int(starts[i]) + int(sizes[i])) for i in members])
            targets = self.targets if where is None else self.targets[where.to(device)]
            soft = joined([term.soft for term in some if term.soft is not None]) if form is not None else None
            yield where, Goal(targets, ce, kl, soft)

    def reported(self, losses: Tensor, parts: Sequence[Part]) -> list[Tensor]:
        """The reported losses [labels] of each of `parts`, in their order."""
        sizes = [len(sequence.labels) for part in self.parts for sequence in part.sequences]
        flags = [term.reported for part in self.parts for term in part.sequence_terms]
        if not all(flags):
            counts = torch.tensor(flags).repeat_interleave(torch.tensor(sizes)).to(losses.device)
            # A loss that is not finite must be reported, also of sequences that are not reported.
            losses = torch.where(counts | ~losses.isfinite(), losses, losses.new_zeros(()))
        return self.by_part(losses, parts)

    def by_part(self, values: Tensor, parts: Sequence[Part]) -> list[Tensor]:
        """`values` [labels, …] of each of `parts`, in their order."""
        split: Sequence[Tensor] = torch.split(values, [part.labels for part in self.parts])
        of = {id(part): value for part, value in zip(self.parts, split, strict=True)}
        return [of[id(part)] for part in parts]

    @classmethod
    def of(cls, runs: Sequence[Sequence[Block]], device: torch.device) -> Pack:
        ids: list[int] = []
        positions: list[int] = []
        predictors: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        blocks = [block for run in runs for block in run]
        for block in blocks:
            for sequence in block.part.sequences:
                predictors += [len(ids) + label - 1 for label in sequence.labels]
                targets += [sequence.ids[label] for label in sequence.labels]
                ids += sequence.ids
                positions += range(len(sequence.ids))
                lengths.append(len(sequence.ids))
            if padding := block.width - block.part.tokens:
                ids += [0] * padding
                positions += [0] * padding
                lengths[-1] += padding
        inputs = {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
            # Otherwise transformers would look for the sequences in the positions, and mask them itself.
            "attention_mask": torch.ones((1, len(ids)), dtype=torch.bool, device=device),
            "segment_lengths": tuple(lengths),
        }
        return cls(
            tuple(block.part for block in blocks),
            inputs,
            torch.tensor(predictors, device=device),
            torch.tensor(targets, device=device),
        )


def _form(term: Term) -> object:
    """Terms of one form have targets that can be concatenated."""
    if term.soft is None or not term.kl:
        return None
    return "states" if isinstance(term.soft, States) else term.soft.tokens.shape[1]
