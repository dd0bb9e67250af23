"""The frozen base under packed rows of many jobs: one forward and one backward pass for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sealkit.backends.comparison import check_same, own_logits, probes, refusing, short_windows
from sealkit.backends.lora import LoraWeights, find_targets, target_names
from sealkit.backends.models import good_at_bfloat16
from sealkit.backends.peft_reading import unread_targets
from sealkit.errors import InvalidModel, UnknownTargetModule
from sealkit.types import LoraConfig, Optimisation
from trainer_svc.adapter import FrozenAdapter, TrainableAdapter, initial_weights
from trainer_svc.attention import packed_implementation
from trainer_svc.checkpoint import Checkpointed
from trainer_svc.encoding import Encoded
from trainer_svc.layout import Groups
from trainer_svc.linear import IDLE, Group, PackedLinear, Step
from trainer_svc.loss import Goal, Soft, States, head_gradient, head_top_k, logits_gradient, logits_top_k
from trainer_svc.step import Pack, Part, apply_adapters, lay_out

_LONGEST = 160
"""Tokens of the longest sequence in the check at the start: more than a block of attention that works in blocks."""


class PackedModel:
    """A frozen causal language model whose linear layers are wrapped, in place, to apply many adapters in one pass.

    Raises InvalidModel if packed sequences do not get what the model gives each of them alone.
    """

    def __init__(self, model: PreTrainedModel, *, checkpoint: bool = False) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        # On a CPU with slow bfloat16, it only saves memory: weights are converted to float32 for each product.
        narrow = self.dtype == torch.bfloat16 and not good_at_bfloat16(self.device)
        self._product_dtype = torch.float32 if narrow else self.dtype
        with refusing(model, "trained"):
            implementation = packed_implementation(model)
            texts = probes(model, _LONGEST)
            own = own_logits(model, texts)
            self._unread = unread_targets(model)
            self.target_names = tuple(name for name in target_names(model) if name not in self._unread)
            if not self.target_names:
                raise InvalidModel(
                    f"PEFT reads no adapter on any of its linear layers ({', '.join(sorted(self._unread))})"
                    if self._unread
                    else "it has no linear layer (torch.nn.Linear) for an adapter"
                )
        self._linears = {path: PackedLinear(linear) for path, linear in self.find_targets(self.target_names).items()}
        for path, packed in self._linears.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, packed)
        self.checkpointed = Checkpointed(model, on=checkpoint)
        self._groups: list[Group] = []
        self._head: nn.Linear | None = None
        with refusing(model, "trained"):
            model.config._attn_implementation = implementation
            self.groups = self._find_groups()
            self._check_same(texts, own)

    def find_targets(self, names: Iterable[str]) -> dict[str, nn.Linear]:
        """The linear layers that match `names`, by path. Raises UnknownTargetModule, also for those whose adapters PEFT
        would not read."""
        for name in names:
            if name.rpartition(".")[2] in self._unread:
                known = ", ".join(self.target_names)
                raise UnknownTargetModule(
                    f"PEFT cannot read an adapter on {name!r} of {type(self.model).__name__}: it takes the name for "
                    f"fused experts; leave it out; valid target_modules: {known}",
                    metadata={"target_module": name, "known": known},
                    fields=(("lora.target_modules", f"{name!r} is not one of: {known}"),),
                )
        return find_targets(self.model, names)

    def trainable(self, weights: LoraWeights, optimisation: Optimisation, *, fixed_a: bool = False) -> TrainableAdapter:
        """An adapter of this model for training; with `fixed_a` of B alone. May raise torch.OutOfMemoryError."""
        return TrainableAdapter.of(
            weights, optimisation, self.groups, self.device, self._product_dtype, fixed_a=fixed_a
        )

    def frozen(self, weights: LoraWeights) -> FrozenAdapter:
        """A policy adapter of this model."""
        return FrozenAdapter.of(weights, self.groups, self.device, self._product_dtype)

    def forward_backward(self, parts: Sequence[Part]) -> list[float]:
        """Runs one step: writes each trial adapter's gradient to it and returns each part's reported loss, in nats a
        label token. A part whose loss is not finite does not change the gradients of other parts."""
        runs = lay_out(parts, self.device)
        pack = Pack.of(runs, self.device)
        applied, trainings = apply_adapters(runs, self.device)
        with self._step(Step(applied, self._product_dtype)):
            states = self._states(pack)
            predictors = pack.predictors.to(states.device)
            rows = states.detach()[0].index_select(0, predictors)
            losses, gradient = self._gradient(rows, pack)
            into = torch.zeros_like(states[0]).index_copy_(0, predictors, gradient)
            states.backward(into.unsqueeze(0))  # type: ignore[no-untyped-call]
        for training in trainings:
            training.end()
        reported = zip(parts, pack.reported(losses, parts), strict=True)
        return [float(loss) for loss in torch.stack([values.sum() / part.share for part, values in reported]).tolist()]

    @torch.no_grad()
    def soft_targets(self, parts: Sequence[Part], top_k: int) -> list[Soft]:
        """Soft targets from the model with the parts' adapters, at the label positions of each: the `top_k` most likely
        tokens and the rest, or, for 0, the hidden states that give the full distribution."""
        with self._packed(parts) as pack:
            states = self._states(pack)
        said = states[0].index_select(0, pack.predictors.to(states.device))
        rows = pack.by_part(said, parts)
        if not top_k:
            return [States(values.clone()) for values in rows]
        if self._head is None:
            return [logits_top_k(values, top_k) for values in rows]
        return [head_top_k(values, *self._head_weights(), top_k) for values in rows]

    @torch.no_grad()
    def inputs(self, part: Part, see: Callable[[int, Tensor], None]) -> None:
        """Runs a part's tokens through the model with its adapters, and calls `see` with the index in `groups` and the
        inputs [tokens, in] of each group of linears."""
        with self._packed([part], see) as pack:
            self._states(pack)

    @torch.no_grad()
    def logits(self, parts: Sequence[Part]) -> Tensor:
        """Logits [labels, vocabulary] at the label positions of all parts, in order."""
        with self._packed(parts) as pack:
            states = self._states(pack)
            rows = states[0].index_select(0, pack.predictors.to(states.device))
            said = rows if self._head is None else self._head(rows)
        return torch.cat(pack.by_part(said, parts))

    def _states(self, pack: Pack) -> Tensor:
        """The inputs of the output head, [1, tokens, features]; or the logits, if the head is more than a matrix
        product."""
        if self._head is None:
            logits: Tensor = self.model(**pack.inputs, use_cache=False).logits
            return logits
        states: Tensor = self._decoder(**pack.inputs, use_cache=False).last_hidden_state
        return states

    @property
    def _decoder(self) -> nn.Module:
        decoder: nn.Module = self.model.get_decoder()  # type: ignore[no-untyped-call]
        return decoder

    def _gradient(self, rows: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """The loss of each of `rows`, selected from `_states`, and the gradient with respect to them. Rows with soft
        targets of one form are computed together."""
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        losses = rows.new_empty(len(rows), dtype=exact)
        gradient = torch.empty_like(rows)
        for where, goal in pack.goals(exact):
            of = slice(None) if where is None else where.to(rows.device)
            losses[of], gradient[of] = self._loss(rows[of], goal)
        return losses, gradient

    def _loss(self, rows: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        if self._head is None:
            return logits_gradient(rows, goal)
        return head_gradient(rows, *self._head_weights(), goal)

    def _head_weights(self) -> tuple[Tensor, Tensor | None]:
        assert self._head is not None
        weight, bias = self._head.weight, self._head.bias
        dtype = self._product_dtype
        return weight.to(dtype), None if bias is None else bias.to(dtype)

    @contextmanager
    def _packed(self, parts: Sequence[Part], see: Callable[[int, Tensor], None] | None = None) -> Iterator[Pack]:
        """Applies the parts' adapters, without training."""
        runs = lay_out(parts, self.device)
        with self._step(Step(apply_adapters(runs, self.device)[0], self._product_dtype, see)):
            yield Pack.of(runs, self.device)

    @contextmanager
    def _step(self, step: Step) -> Iterator[None]:
        for group in self._groups:
            group.begin(step)
        try:
            yield
        finally:
            for group in self._groups:
                group.begin(IDLE)

    @torch.no_grad()
    def _find_groups(self) -> Groups:
        """Finds out which linears have the same input, and whether the output head is only a matrix product."""
        seen: list[tuple[str, Tensor]] = []  # keeps the inputs alive, so that no two have the same address
        hooks = [
            packed.register_forward_pre_hook(lambda _, inputs, path=path: seen.append((path, inputs[0])))
            for path, packed in self._linears.items()
        ]
        pack = Pack.of(lay_out([Part((_labelled(probes(self.model, _LONGEST)[-1]),))], self.device), self.device)
        logits = self.model(**pack.inputs, use_cache=False).logits
        for hook in hooks:
            hook.remove()
        together: dict[int, list[str]] = {}
        for path, x in seen:
            together.setdefault(id(x), []).append(path)
        unused = [[path] for path in self._linears if path not in {path for path, _ in seen}]
        groups: Groups = tuple(tuple(dict.fromkeys(paths)) for paths in [*together.values(), *unused])
        for index, paths in enumerate(groups):
            group = Group(index, [self._linears[path] for path in paths])
            for linear in group.linears:
                linear.group = group
            self._groups.append(group)
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        decoder = self._decoder
        if isinstance(head, nn.Linear) and isinstance(decoder, PreTrainedModel) and decoder is not self.model:
            states = decoder(**pack.inputs, use_cache=False).last_hidden_state
            self._head = head if torch.equal(head(states), logits) else None
        return groups

    def _check_same(self, texts: Sequence[Sequence[int]], own: Sequence[Tensor]) -> None:
        """Compares packed sequences with `own`, the logits [tokens, vocabulary] of each text alone."""
        parts = [Part((_labelled(ids),)) for ids in texts]
        with short_windows(self.model):
            packed: Sequence[Tensor] = torch.split(self.logits(parts), [part.labels for part in parts])
        check_same(packed, [logits[:-1] for logits in own])
        self._check_adapters(parts[1:], own[-1])

    def _check_adapters(self, parts: Sequence[Part], own: Tensor) -> None:
        """An adapter must not change the sequences beside its own, and a step with one that changes nothing yet must
        report the loss of the logits `own` of the last part."""
        lora = LoraConfig(rank=1, alpha=1, target_modules=self.target_names)
        start = initial_weights(lora, self.find_targets(self.target_names), seed=0)
        turned = {path: (a, (a.new_ones(1, len(b)) / len(b) ** 0.5).T) for path, (a, b) in start.tensors.items()}
        unchanged, changed = (
            self.trainable(weights, Optimisation(learning_rate=1e-3)) for weights in (start, LoraWeights(lora, turned))
        )
        some = [replace(part, trial=trial) for part, trial in zip(parts, (changed, unchanged), strict=True)]
        with short_windows(self.model):
            alone = [self.logits([part]) for part in some]
            check_same(torch.split(self.logits(some), [part.labels for part in some]), alone)
            (loss,) = self.forward_backward(some[1:])
        targets = torch.tensor(parts[-1].sequences[0].ids[1:], device=own.device)
        expected = float(nn.functional.cross_entropy(own[:-1].double(), targets))
        if not abs(loss - expected) <= 0.05 * max(1.0, expected):
            raise InvalidModel(f"its loss in a packed row is {loss:.3f} nats, alone {expected:.3f}")


def _labelled(ids: Sequence[int]) -> Encoded:
    return Encoded(tuple(ids), tuple(range(1, len(ids))))
