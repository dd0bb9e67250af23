"""LoRA weights (arXiv 2106.09685) in memory and in PEFT's own files (safetensors and a JSON config)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from sealkit import limits
from sealkit.errors import AdapterCorrupt, AdapterMismatch, LimitExceeded, UnknownTargetModule
from sealkit.types import LoraConfig

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PREFIX = "base_model.model."
# PEFT features that change the meaning of the two matrices; an adapter with one would silently be applied wrongly.
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "fan_in_fan_out")


@dataclass(frozen=True)
class LoraWeights:
    """An adapter: for each target linear, by module path, A [rank, in] and B [out, rank], both float32 (float64 is
    kept). It adds `scaling · B A x` to the output of the linear."""

    config: LoraConfig
    tensors: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def scaling(self) -> float:
        return self.config.alpha / self.config.rank


def load_adapter(files: Mapping[str, bytes]) -> LoraWeights:
    """Reads an adapter from its files in PEFT's format, by name.

    Raises AdapterCorrupt when a file is missing or malformed, or the adapter uses a PEFT feature beyond plain LoRA.
    """
    if pickles := [name for name in sorted(files) if name.endswith(_PICKLES)]:
        raise AdapterCorrupt(
            f"the adapter contains {pickles[0]}, a pickle, which can run code when it is read; convert it to "
            "safetensors, the only format that is read, and remove the pickle"
        )
    try:
        stored = json.loads(files[CONFIG_FILE])
        flat = safetensors.torch.load(files[WEIGHTS_FILE])
    except KeyError as fault:
        raise AdapterCorrupt(f"the adapter has no {fault.args[0]}") from fault
    except (ValueError, RecursionError, SafetensorError) as fault:
        raise AdapterCorrupt(f"the adapter's files cannot be read: {fault}") from fault
    if not isinstance(stored, dict):
        raise AdapterCorrupt(f"{CONFIG_FILE} is not a JSON object")
    used = [name for name in _UNSUPPORTED if stored.get(name)] + [f"bias={b}" for b in _bias(stored)]
    if used:
        raise AdapterCorrupt(f"the adapter uses PEFT features that are not supported here: {', '.join(used)}")
    tensors = _pair(flat)
    try:
        return LoraWeights(_config(stored, tensors), tensors)
    except (KeyError, TypeError, ValueError, OverflowError) as fault:
        raise AdapterCorrupt(f"{CONFIG_FILE} does not describe a LoRA adapter: {fault}") from fault


def dump_adapter(weights: LoraWeights, base_name: str) -> dict[str, bytes]:
    """The adapter's files in PEFT's format, by name; `peft.PeftModel.from_pretrained` and vLLM load them unchanged.
    Equal weights give equal bytes."""
    flat = {}
    for path, (a, b) in sorted(weights.tensors.items()):
        flat[f"{_PREFIX}{path}.lora_A.weight"] = a.detach().cpu().contiguous()
        flat[f"{_PREFIX}{path}.lora_B.weight"] = b.detach().cpu().contiguous()
    alpha = weights.config.alpha
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": weights.config.dropout,
        "modules_to_save": None,
        "r": weights.config.rank,
        "target_modules": sorted(weights.config.target_modules),
        "use_dora": False,
        "use_rslora": False,
    }
    return {
        CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(flat, metadata={"format": "pt"}),
    }


def concatenate(policy: LoraWeights, trial: LoraWeights) -> LoraWeights:
    """One adapter with exactly the sum of both updates: the A concatenated along the rank, the B too, each scaling
    folded into its B, so that alpha / rank is 1. A module that only one of them has is padded with zeros to the common
    rank.

    Raises LimitExceeded if the sum of the ranks exceeds the limit of an adapter.
    """
    rank = policy.config.rank + trial.config.rank
    if rank > limits.RANK:
        raise LimitExceeded(
            f"ranks {policy.config.rank} and {trial.config.rank} make {rank}, but at most {limits.RANK} is allowed; "
            'consolidate what was learned into one adapter (adapt.commit = "consolidate")',
            metadata={"limit": "rank", "allowed": str(limits.RANK), "asked": str(rank)},
        )
    tensors = {}
    for path in sorted({*policy.tensors, *trial.tensors}):
        parts = [
            (one.tensors[path][0], one.tensors[path][1] * one.scaling) for one in (policy, trial) if path in one.tensors
        ]
        a, b = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
        missing = rank - a.shape[0]
        tensors[path] = (nn.functional.pad(a, (0, 0, 0, missing)), nn.functional.pad(b, (0, missing)))
    targets = {*policy.config.target_modules, *trial.config.target_modules}
    return LoraWeights(LoraConfig(rank=rank, alpha=rank, target_modules=tuple(sorted(targets))), tensors)


def target_names(model: nn.Module) -> tuple[str, ...]:
    """Valid names for `target_modules`: the last parts of the paths of all linear layers except the output head."""
    return tuple(sorted({path.rpartition(".")[2] for path, _ in _linears(model)}))


def find_targets(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers that match `names`, by module path, in the model's order. As in PEFT a name matches the end of
    a path (`q_proj`, `layers.0.mlp.up_proj`). Raises UnknownTargetModule, which lists the valid names."""
    linears = _linears(model)
    found: dict[str, nn.Linear] = {}
    for name in names:
        hits = {path for path, _ in linears if path == name or path.endswith(f".{name}")}
        if not hits:
            known = ", ".join(target_names(model))
            raise UnknownTargetModule(
                f"the model has no linear layer named {name!r}; valid target_modules: {known}",
                metadata={"target_module": name, "known": known},
                fields=(("lora.target_modules", f"{name!r} is not one of: {known}"),),
            )
        found.update({path: linear for path, linear in linears if path in hits})
    order = [path for path, _ in linears]
    return {path: found[path] for path in sorted(found, key=order.index)}


def check_fit(weights: LoraWeights, model: nn.Module) -> None:
    """Raises AdapterMismatch if `model` has no linear of the shape of one of the adapter's tensors."""
    linears = dict(_linears(model))
    for path, (a, b) in weights.tensors.items():
        linear = linears.get(path)
        if linear is None:
            raise AdapterMismatch(
                f"the adapter targets {path}, which this model does not have; it belongs to another base model"
            )
        if (b.shape[0], a.shape[1]) != (linear.out_features, linear.in_features):
            want = f"{linear.in_features} → {linear.out_features}"
            raise AdapterMismatch(f"the adapter maps {a.shape[1]} → {b.shape[0]} at {path}, the model {want}")


def _linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    head: object = PreTrainedModel.get_output_embeddings(model) if isinstance(model, PreTrainedModel) else None  # type: ignore[no-untyped-call]
    return [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]


def _pair(flat: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        path, _, half = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        if half not in ("lora_A", "lora_B") or tensor.ndim != 2:
            raise AdapterCorrupt(f"{WEIGHTS_FILE} holds {key}, which is not a matrix of a LoRA adapter on a linear")
        exact = tensor.dtype in (torch.float32, torch.float64)
        if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
            raise AdapterCorrupt(f"{WEIGHTS_FILE} holds {key}, whose values are not all finite numbers")
        halves.setdefault(path, {})[half] = tensor if exact else tensor.float()
    if not halves:
        raise AdapterCorrupt(f"{WEIGHTS_FILE} holds no matrix")
    for path, half_of in halves.items():
        if len(half_of) != 2 or half_of["lora_A"].shape[0] != half_of["lora_B"].shape[1]:
            raise AdapterCorrupt(f"{WEIGHTS_FILE} lacks A or B for {path}, or their ranks differ")
    return {path: (half_of["lora_A"], half_of["lora_B"]) for path, half_of in sorted(halves.items())}


def _config(stored: Mapping[str, Any], tensors: Mapping[str, tuple[Tensor, Tensor]]) -> LoraConfig:
    rank = int(stored["r"])
    if any(a.shape[0] != rank for a, _ in tensors.values()):
        raise AdapterCorrupt(f"{CONFIG_FILE} says rank {rank}, but the weights have another")
    targets = stored["target_modules"]
    if isinstance(targets, str):  # a pattern; the modules that it matched are in the weights
        targets = {path.rpartition(".")[2] for path in tensors}
    # rsLoRA scales by alpha / sqrt(rank); folded into alpha, one scaling rule is left.
    alpha = float(stored["lora_alpha"]) * (math.sqrt(rank) if stored.get("use_rslora") else 1.0)
    return LoraConfig(
        rank=rank, alpha=alpha, dropout=stored.get("lora_dropout") or 0.0, target_modules=tuple(sorted(targets))
    )


def _bias(stored: Mapping[str, Any]) -> list[str]:
    return [stored["bias"]] if stored.get("bias", "none") != "none" else []
