"""The frozen base under packed rows of many jobs: one forward and one backward pass for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sealkit.backends.lora import LoraWeights, find_targets, target_names
from sealkit.backends.models import good_at_bfloat16
from sealkit.errors import InvalidModel
from sealkit.types import Optimisation
from trainer_svc import attention
from trainer_svc.adapter import FrozenAdapter, TrainableAdapter
from trainer_svc.checkpoint import Checkpointed
from trainer_svc.encoding import Encoded
from trainer_svc.layout import Groups
from trainer_svc.linear import IDLE, Group, PackedLinear, Step
from trainer_svc.loss import Goal, Soft, States, head_gradient, head_top_k, logits_gradient, logits_top_k
from trainer_svc.step import Pack, Part, apply_adapters, lay_out


class PackedModel:
    """A frozen causal language model whose linear layers are wrapped, in place, to apply many adapters in one pass.

    Raises InvalidModel if the architecture does not support packed sequences without attention between them.
    """

    def __init__(self, model: PreTrainedModel, *, checkpoint: bool = False) -> None:
        if not getattr(model, "_supports_attention_backend", False):
            raise InvalidModel(f"{type(model).__name__} cannot use another attention, which packed training needs")
        self.model = model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        # On a CPU with slow bfloat16, it only saves memory: weights are converted to float32 for each product.
        narrow = self.dtype == torch.bfloat16 and not good_at_bfloat16(self.device)
        self._product_dtype = torch.float32 if narrow else self.dtype
        self.target_names = target_names(model)
        self._linears = {path: PackedLinear(linear) for path, linear in self.find_targets(self.target_names).items()}
        for path, packed in self._linears.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, packed)
        model.config._attn_implementation = attention.NAME
        self.checkpointed = Checkpointed(model, on=checkpoint)
        self._groups: list[Group] = []
        self._head: nn.Linear | None = None
        self.groups = self._find_groups()
        self._check_apart()

    def find_targets(self, names: Iterable[str]) -> dict[str, nn.Linear]:
        """The linear layers that match `names`, by path. Raises UnknownTargetModule."""
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
            output = self.model(**pack.inputs, logits_to_keep=pack.predictors, use_cache=False)
        return torch.cat(pack.by_part(output.logits[0], parts))

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
        pack = Pack.of(lay_out([Part((self._probe(8),))], self.device), self.device)
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
        if isinstance(head, nn.Linear) and hasattr(self.model, "get_decoder"):
            states = self._decoder(**pack.inputs, use_cache=False).last_hidden_state
            self._head = head if torch.equal(head(states), logits) else None
        return groups

    def _check_apart(self) -> None:
        parts = [Part((self._probe(length),)) for length in (3, 8)]
        together = self.logits(parts)
        alone = torch.cat([self.logits([part]) for part in parts])
        scale = alone.float().abs().max()
        if not (together - alone).abs().max() <= 0.05 * scale:
            raise InvalidModel(
                f"{type(self.model).__name__} has attention between packed sequences, so it cannot be trained here"
            )

    def _probe(self, length: int) -> Encoded:
        size = self.model.config.get_text_config().vocab_size
        return Encoded(tuple((7 * i + length) % size for i in range(length)), (length - 1,))
