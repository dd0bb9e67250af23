"""The frozen base under packed rows of many jobs: one forward and one backward pass for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sealkit.backends.lora import find_targets, target_names
from sealkit.errors import InvalidModel
from trainer_svc import attention
from trainer_svc.adapter import FrozenAdapter, TrainableAdapter
from trainer_svc.encoding import Encoded
from trainer_svc.linear import PackedLinear, Slice
from trainer_svc.loss import loss_gradient_


@dataclass(frozen=True)
class Part:
    """What one job puts into a step: a micro-batch, the adapters it goes through, and how its loss counts.

    The gradient is that of share · (mean CE + kl_beta · mean KL) over the label tokens. `generator` draws dropout."""

    sequences: tuple[Encoded, ...]
    trial: TrainableAdapter | None = None
    policy: FrozenAdapter | None = None
    share: float = 1.0
    kl_beta: float = 0.0
    generator: torch.Generator | None = None

    @property
    def tokens(self) -> int:
        return sum(len(sequence.ids) for sequence in self.sequences)

    @property
    def labels(self) -> int:
        return sum(len(sequence.labels) for sequence in self.sequences)


class PackedModel:
    """A frozen causal language model whose linear layers are wrapped, in place, to serve many adapters at once.

    Raises InvalidModel where the architecture cannot take packed sequences: sequences must not see each other.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if not getattr(model, "_supports_attention_backend", False):
            raise InvalidModel(f"{type(model).__name__} cannot use another attention, which packed training needs")
        self.model = model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.target_names = target_names(model)
        self._linears = {path: PackedLinear(linear) for path, linear in self.find_targets(self.target_names).items()}
        for path, packed in self._linears.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, packed)
        model.config._attn_implementation = attention.NAME
        self._check_apart()

    def find_targets(self, names: Iterable[str]) -> dict[str, nn.Linear]:
        """The linear layers that `names` mean, by path. Raises UnknownTargetModule."""
        return find_targets(self.model, names)

    def forward_backward(self, parts: Sequence[Part]) -> list[float]:
        """Runs one step: leaves each trial adapter's gradient in it and returns each part's mean cross-entropy, in nats
        a label token. A part whose loss is not finite leaves every other part's gradient as it would be without it."""
        for part in parts:
            assert part.trial is not None
            part.trial.begin()
        pack = _Pack.of(parts, self.device)
        logits = self._logits(parts, pack)
        flat = logits.detach()[0]
        sizes = [part.labels for part in parts]
        weights = self._spread([part.share / part.labels for part in parts], sizes)
        kl_weights = self._spread([part.kl_beta * part.share / part.labels for part in parts], sizes)
        reference = self._reference(parts, flat)
        entropies = loss_gradient_(flat, pack.targets, weights, reference, kl_weights)
        means = torch.stack([entropy.mean() for entropy in torch.split(entropies, sizes)])
        logits.backward(logits.detach())  # type: ignore[no-untyped-call]
        return [float(mean) for mean in means.tolist()]

    @torch.no_grad()
    def logits(self, parts: Sequence[Part]) -> Tensor:
        """Logits [labels, vocabulary] at the label positions of all parts, in order."""
        return self._logits(parts, _Pack.of(parts, self.device))[0]

    def _logits(self, parts: Sequence[Part], pack: _Pack) -> Tensor:
        self._assign(parts)
        try:
            output = self.model(
                input_ids=pack.ids,
                position_ids=pack.positions,
                logits_to_keep=pack.predictors,
                use_cache=False,
                segment_lengths=pack.lengths,
            )
        finally:
            for packed in self._linears.values():
                packed.slices = ()
        logits: Tensor = output.logits
        return logits

    def _assign(self, parts: Sequence[Part]) -> None:
        rows = [part.tokens for part in parts]
        for path, packed in self._linears.items():
            slices = []
            for part, count in zip(parts, rows, strict=True):
                trial = part.trial.pairs.get(path) if part.trial else None
                policy = part.policy.pairs.get(path) if part.policy else None
                dropout = part.trial.config.dropout if part.trial else 0.0
                slices.append(Slice(count, trial, policy, dropout, part.generator))
            packed.slices = tuple(slices)

    def _reference(self, parts: Sequence[Part], logits: Tensor) -> Tensor | None:
        """What the same model says with the trial adapters off, in the rows of the parts that ask for a KL term."""
        asking = [part for part in parts if part.kl_beta]
        if not asking:
            return None
        bare = [Part(part.sequences, policy=part.policy) for part in asking]
        if len(asking) == len(parts):
            return self.logits(bare)
        rows = torch.cat([torch.full((part.labels,), bool(part.kl_beta)) for part in parts]).to(self.device)
        reference = torch.zeros_like(logits)
        reference[rows] = self.logits(bare)
        return reference

    def _spread(self, values: list[float], sizes: list[int]) -> Tensor:
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        each = torch.tensor(values, dtype=exact, device=self.device)
        return each.repeat_interleave(torch.tensor(sizes, device=self.device))

    def _check_apart(self) -> None:
        size = self.model.config.get_text_config().vocab_size
        short, long = (Encoded(tuple((7 * i + n) % size for i in range(n)), (n - 1,)) for n in (3, 8))
        together = self.logits([Part((long,)), Part((short,))])[1]
        alone = self.logits([Part((short,))])[0]
        scale = alone.float().abs().max()
        if not (together - alone).abs().max() <= 0.05 * scale:
            raise InvalidModel(
                f"{type(self.model).__name__} lets packed sequences see each other; it cannot be trained here"
            )


@dataclass(frozen=True)
class _Pack:
    """The sequences of a step end to end, no padding: `ids` and `positions` [1, tokens]; `predictors` [labels] are the
    rows that predict `targets` [labels]."""

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    predictors: Tensor
    targets: Tensor

    @classmethod
    def of(cls, parts: Sequence[Part], device: torch.device) -> _Pack:
        ids: list[int] = []
        positions: list[int] = []
        predictors: list[int] = []
        targets: list[int] = []
        lengths = []
        for sequence in (s for part in parts for s in part.sequences):
            predictors += [len(ids) + label - 1 for label in sequence.labels]
            targets += [sequence.ids[label] for label in sequence.labels]
            ids += sequence.ids
            positions += range(len(sequence.ids))
            lengths.append(len(sequence.ids))
        return cls(
            torch.tensor([ids], device=device),
            torch.tensor([positions], device=device),
            tuple(lengths),
            torch.tensor(predictors, device=device),
            torch.tensor(targets, device=device),
        )
