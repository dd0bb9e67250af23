"""Which cached places a token reads, in the form that a model's layers take: all up to its own, or a window of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sealkit.backends.positions import layer_types, sliding_window
from sealkit.errors import InvalidModel

_FULL, _SLIDING = "full_attention", "sliding_attention"


class Masks:
    """Makes the additive masks of one model. Raises InvalidModel if it does not take them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._dtype = model.dtype
        self._window = sliding_window(model.config)
        self._kinds = {_FULL, _SLIDING} if _SLIDING in layer_types(model.config) else set()
        if self._window and self._kinds:
            self._try(model)

    def __call__(self, positions: Tensor, read: int) -> Tensor | dict[str, Tensor]:
        """For tokens at `positions` [n, s] that read `read` places: [n, 1, s, read]; by kind of layer, if the model has
        more than one."""
        if self._window is None:
            return self._additive(positions, read, None)
        if not self._kinds:
            return self._additive(positions, read, self._window)
        narrow = self._additive(positions, read, self._window)
        return {_FULL: self._additive(positions, read, None), _SLIDING: narrow}

    def _additive(self, positions: Tensor, read: int, window: int | None) -> Tensor:
        places, own = torch.arange(read, device=positions.device), positions[:, None, :, None]
        hidden = places > own
        if window is not None:
            hidden = hidden | (places <= own - window)
        return torch.zeros(hidden.shape, dtype=self._dtype, device=positions.device).masked_fill_(hidden, float("-inf"))

    @torch.inference_mode()
    def _try(self, model: PreTrainedModel) -> None:
        ids: Any = torch.zeros((1, 2), dtype=torch.long, device=model.device)
        masks: Any = self(torch.arange(2, device=model.device)[None], 2)
        try:
            model(input_ids=ids, attention_mask=masks, use_cache=False)
        except (AttributeError, TypeError, ValueError, KeyError, RuntimeError) as fault:
            raise InvalidModel(
                f"{type(model).__name__} mixes layers with and without a sliding window in a way that cannot be "
                f"decoded here ({fault}); serve it with vLLM (backend vllm)"
            ) from fault
