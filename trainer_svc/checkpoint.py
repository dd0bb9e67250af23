"""Gradient checkpointing (arXiv 1604.06174): a layer's activations are recomputed for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


class Checkpointed:
    """The decoder layers of `model`, wrapped in place: while `on`, a step stores only each layer's input and computes
    the rest twice. `possible` is False if the model has no list of layers."""

    def __init__(self, model: PreTrainedModel, *, on: bool) -> None:
        self.on = on
        decoder: object = model.get_decoder() if hasattr(model, "get_decoder") else None  # type: ignore[no-untyped-call]
        layers = getattr(decoder, "layers", None)
        self.possible = isinstance(layers, nn.ModuleList)
        for layer in layers if isinstance(layers, nn.ModuleList) else ():
            layer.forward = self._wrap(layer.forward)

    def _wrap(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if not (self.on and torch.is_grad_enabled()):
                return forward(*args, **options)
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **options)

        return wrapped
