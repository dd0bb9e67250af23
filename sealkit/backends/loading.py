"""How a base model is stored in memory, beyond its dtype: in 4 bits, over several devices."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from sealkit.errors import InvalidConfig


@dataclass(frozen=True)
class Loading:
    """`four_bit`: weights of the linear layers in 4 bits, NF4 (arXiv 2305.14314), unpacked for each product;
    `device_map`: accelerate's (`auto`, `balanced`, …), empty: all on one device."""

    four_bit: bool = False
    device_map: str = ""

    def options(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`; empty for a plain model. Raises InvalidConfig if a package is
        missing."""
        if self.device_map or self.four_bit:
            _require("accelerate", "pip install accelerate")
        options: dict[str, Any] = {"device_map": self.device_map or {"": device}}
        if self.four_bit:
            _require("bitsandbytes", "pip install 'seal-suite[quantised]', or set four_bit to false")
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        return options if self.device_map or self.four_bit else {}

    def dtype_name(self, dtype: torch.dtype) -> str:
        """Suffix of the model's name in values that depend on its weights."""
        name = str(dtype).removeprefix("torch.")
        return f"{name}-nf4" if self.four_bit else name


def _require(package: str, remedy: str) -> None:
    if find_spec(package) is None:
        raise InvalidConfig(f"this needs the package {package}, which is not installed: {remedy}")
