"""Whether PEFT reads adapters of a model as they are written here.

For some architectures, mostly mixtures of experts, PEFT maps the names of targets and weights to the parameters into
which transformers fuses the experts, also where a dense layer has the same name: an adapter on that layer is then not
read, or only with a warning.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from itertools import count
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from transformers import PreTrainedModel

from sealkit import types
from sealkit.backends.lora import LoraWeights, find_targets, stored_config, stored_tensors, target_names


def unread_targets(model: PreTrainedModel) -> frozenset[str]:
    """The names among the model's targets whose adapters PEFT does not read as `dump_adapter` writes them. Asks PEFT
    itself, on a copy of the model without weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, about names that transformers deprecates
        reader = _Reader(type(model)(copy.deepcopy(model.config)))
        names = target_names(reader.base)
        if not names or reader.reads(names):
            return frozenset()
        return frozenset(name for name in names if not reader.reads([name]))


class _Reader:
    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self._targets = {name: find_targets(base, [name]) for name in target_names(base)}
        self._wrapped: PeftModel | None = None
        self._adapters = count()

    def reads(self, names: Iterable[str]) -> bool:
        """Whether PEFT gives every matrix of an adapter on `names` its place."""
        linears = {path: linear for name in names for path, linear in self._targets[name].items()}
        weights = LoraWeights(
            types.LoraConfig(rank=1, alpha=1, target_modules=tuple(names)),
            {
                path: (torch.empty(1, linear.in_features), torch.empty(linear.out_features, 1))
                for path, linear in linears.items()
            },
        )
        adapter = f"adapter_{next(self._adapters)}"
        config = LoraConfig(**stored_config(weights.config, ""))
        try:
            if self._wrapped is None:
                self._wrapped = PeftModel(self.base, config, adapter_name=adapter, autocast_adapter_dtype=False)
            else:
                self._wrapped.add_adapter(adapter, config)
            result: Any = set_peft_model_state_dict(self._wrapped, stored_tensors(weights), adapter_name=adapter)
        except (ValueError, RuntimeError, KeyError, AttributeError, TypeError):
            return False
        places = {name for name, _ in self._wrapped.named_parameters() if f".{adapter}." in name}
        wanted = {f"base_model.model.{path}.lora_{half}.{adapter}.weight" for path in linears for half in ("A", "B")}
        return not result.unexpected_keys and wanted <= places and not wanted & set(result.missing_keys)
