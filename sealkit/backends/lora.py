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
_READ = {
    "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "peft_type", "bias", "init_lora_weights",
}  # fmt: skip
_MEANINGLESS = {
    # Where the adapter comes from.
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type",
    # Which modules were chosen: those that it has are in the weights.
    "exclude_modules", "layers_pattern", "layers_to_transform", "ensure_weight_tying",
    # Parameters of initialisations, and of what is off.
    "corda_config", "eva_config", "lora_ga_config", "loftq_config", "megatron_core", "qalora_group_size",
    "runtime_config",
}  # fmt: skip
"""Keys of PEFT's config that do not change what the two matrices do. Every other one does, if it is set."""
_PLAIN_STARTS = ("true", "false", "none", "gaussian", "orthogonal", "eva", "mica")
"""Initialisations that leave the base model as it is. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA move a part of its weights
into the adapter, and PEFT does so again when it loads one."""


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
    if used := _beyond_lora(stored):
        raise AdapterCorrupt(
            f"the adapter is not plain LoRA or rsLoRA, the only ones that are read here: {', '.join(used)}. Merge it "
            "into its base model with PEFT (merge_and_unload) and take that as the base model, or train it as plain "
            "LoRA; one that starts from the base's own weights (PiSSA, OLoRA, CorDA) is saved as plain LoRA by PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=…)"
        )
    tensors = _pair(flat)
    try:
        return LoraWeights(_config(stored, tensors), tensors)
    except (KeyError, TypeError, ValueError, OverflowError) as fault:
        raise AdapterCorrupt(f"{CONFIG_FILE} does not describe a LoRA adapter: {fault}") from fault


def dump_adapter(weights: LoraWeights, base_name: str) -> dict[str, bytes]:
    """The adapter's files in PEFT's format, by name; `peft.PeftModel.from_pretrained` and vLLM load them unchanged (for
    targets that `peft_reading.unread_targets` does not name). Equal weights give equal bytes."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(weights).items()}
    return {
        CONFIG_FILE: (json.dumps(stored_config(weights.config, base_name), indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(flat, metadata={"format": "pt"}),
    }


def stored_tensors(weights: LoraWeights) -> dict[str, Tensor]:
    """The matrices by their names in PEFT's files."""
    names = ((path, *pair) for path, pair in sorted(weights.tensors.items()))
    return {
        f"{_PREFIX}{path}.lora_{half}.weight": tensor for path, a, b in names for half, tensor in (("A", a), ("B", b))
    }


def stored_config(config: LoraConfig, base_name: str) -> dict[str, Any]:
    """The fields of PEFT's config."""
    alpha = config.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "r": config.rank,
        "target_modules": sorted(config.target_modules),
        "use_dora": False,
        "use_rslora": False,
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
    """Without the output head."""
    head: object = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None  # type: ignore[no-untyped-call]
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and _is_product(module)
    ]


def _is_product(linear: nn.Linear) -> bool:
    """Whether the layer gives one output for its input. A model's own subclass of nn.Linear may be a router, which
    gives scores and choices."""
    if not type(linear).__module__.startswith("transformers."):
        return True
    try:
        output = linear(linear.weight.new_zeros(1, linear.in_features))
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(output, Tensor) and output.shape == (1, linear.out_features)


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


def _beyond_lora(stored: Mapping[str, Any]) -> list[str]:
    """What the config sets that plain LoRA does not have."""
    found = [name for name in sorted(stored.keys() - _READ - _MEANINGLESS) if stored[name]]
    plain = {"peft_type": ("lora", "none"), "bias": ("none",), "init_lora_weights": _PLAIN_STARTS}
    defaults = {"peft_type": "lora", "bias": "none", "init_lora_weights": True}
    for name, allowed in plain.items():
        value = stored.get(name, defaults[name])
        if str(value).lower() not in allowed:
            found.append(f"{name}={value}")
    return found
