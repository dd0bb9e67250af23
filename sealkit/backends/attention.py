"""The kinds of attention that transformers' models have: sdpa, or the eager function of the model's module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from transformers.masking_utils import eager_mask, sdpa_mask

Kind = Literal["sdpa", "eager"]
MASKS: dict[Kind, Callable[..., Tensor | None]] = {"sdpa": sdpa_mask, "eager": eager_mask}
"""transformers' function that makes the mask for each kind of attention."""
