"""The files of a base model: found, checked before anything is read, digested, and what of them was loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open

from sealkit.errors import InvalidModel

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PART = re.compile(r"[\w.-]+\.safetensors")
_RANK_FILE = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_SPLIT_GGUF = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_WRAPPERS = {
    "base_model.model.": "they were saved from a PEFT model: call merge_and_unload() and save its result",
    "base_layer.": "they were saved with an adapter that is not merged: call merge_and_unload() and save its result",
    "lora_": "they were saved with an adapter that is not merged: call merge_and_unload() and save its result",
    "_orig_mod.": "they were saved from a compiled model: save model._orig_mod",
    "_fsdp_wrapped_module.": "they were saved from an FSDP wrapper: save the full state dict of the model inside",
    "_checkpoint_wrapped_module.": "they were saved from a checkpointing wrapper: save the model inside",
    "module.": "they were saved from a DataParallel wrapper: save model.module",
    "weight_scale": "they are quantised, and config.json has no quantization_config: save the model dense",
    "qweight": "they are quantised, and config.json has no quantization_config: save the model dense",
}
"""Parts of keys that training tools leave, and how to save the model without them."""
_INTEGERS = {"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
_SHOWN = 4


def locate(model: str) -> Path:
    """The folder or .gguf file of `model`; a hub id is taken from the local cache or downloaded.

    Raises InvalidModel if there is none, or if what is there is not a base model alone.
    """
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InvalidModel(
                f"{model} is a file but not *.gguf; give a Hugging Face folder, a hub id or a .gguf file"
            )
        _refuse_adapter(path.parent)
        return path
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "~")) or not _HUB_ID.fullmatch(model):
            raise InvalidModel(f"there is no model at {model!r}; give a Hugging Face folder, a hub id or a .gguf file")
        try:
            path = Path(snapshot_download(model, allow_patterns=_HUB_FILES))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
            reason = str(fault).splitlines()[0]
            raise InvalidModel(f"no folder named {model!r} here, and the hub does not provide it: {reason}") from fault
    _refuse_adapter(path)
    if not (path / "config.json").is_file():
        raise InvalidModel(f"{model} is not a model folder: it has no config.json")
    if not any(path.glob("*.safetensors")):
        raise InvalidModel(f"{model} has no *.safetensors weights; convert the model to safetensors first")
    weight_files(path)
    return path


def weight_files(path: Path) -> list[Path]:
    """The files of a model's folder, or the GGUF file, that its weights are read from, sorted by name. A folder may
    have others, which are not read. Raises InvalidModel if an index names anything but safetensors of that folder."""
    if path.is_file():
        return [path]
    named = json_of(path / "config.json").get("transformers_weights")
    names = [named] if isinstance(named, str) else [_WEIGHTS, _INDEX]
    name = next((name for name in names if (path / name).is_file()), None)
    if name is None:
        raise InvalidModel(f"{path} has no {' or '.join(names)}; save the model with save_pretrained")
    if strange := sorted(file.name for file in path.iterdir() if _RANK_FILE.fullmatch(file.name)):
        raise InvalidModel(f"{path} is a distributed checkpoint ({strange[0]}); save the whole model in one place")
    parts = _parts(path / name) if name.endswith(".json") else {name}
    if strange := sorted(part for part in parts if not _PART.fullmatch(part)):
        raise InvalidModel(
            f"{path / name} names {strange[0][:200]!r}; only *.safetensors of the same folder are read, because a "
            "pickle can run code when it is read: convert the model to safetensors"
        )
    if missing := sorted(part for part in parts if not (path / part).is_file()):
        raise InvalidModel(f"{path / name} names {missing[0]}, which is not there; copy the model again")
    return [path / part for part in sorted(parts)]


def weights_digest(path: Path, tokenizer_digest: str, more_end_tokens: Iterable[int]) -> str:
    """SHA-256 over all that a model's answers depend on: its weights and config, its tokenizer and template, and the
    tokens that end a text besides the tokenizer's own."""
    files = [path] if path.is_file() else [path / "config.json", *weight_files(path)]
    total = hashlib.sha256(tokenizer_digest.encode())
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    if more := sorted(more_end_tokens):
        total.update(json.dumps(more).encode())
    return total.hexdigest()


def check_filled(path: Path, loading_info: Mapping[str, Collection[Any]]) -> None:
    """Compares the checkpoint with the model, by the `output_loading_info` of transformers' `from_pretrained`: a weight
    that the checkpoint lacks would be random, a key that the model lacks would be left out. Raises InvalidModel."""
    lacking = sorted({*loading_info["missing_keys"], *(key for key, *_ in loading_info["mismatched_keys"])})
    unused = sorted(loading_info["unexpected_keys"])
    if not lacking and not unused:
        return
    found = []
    if lacking:
        found.append(f"{len(lacking)} weights of the model are not in it ({_some(lacking)})")
    if unused:
        found.append(f"{len(unused)} of its keys are not in the model ({_some(unused)})")
    raise InvalidModel(f"{path} does not fill the model: {', and '.join(found)}; {_remedy(path, unused)}")


def check_types(path: Path, *, quantised: bool) -> None:
    """Compares the types of a folder's weights with how they were read: a quantisation that transformers does not know
    is left out, and integers are then taken for weights. Raises InvalidModel."""
    if quantised:
        return
    if wanted := json_of(path / "config.json").get("quantization_config"):
        method = wanted.get("quant_method") if isinstance(wanted, dict) else wanted
        raise InvalidModel(f"{path} is quantised by {method!r}, which transformers does not know; take a dense model")
    for file in weight_files(path):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - not a mapping
                if (kind := stored.get_slice(key).get_dtype()) in _INTEGERS:
                    raise InvalidModel(
                        f"{file} has {key} as integers ({kind}) without a quantization_config in config.json; "
                        "take a dense model"
                    )


def json_of(file: Path) -> dict[str, Any]:
    """A JSON file with an object. Raises InvalidModel."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise InvalidModel(f"{file} is not JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise InvalidModel(f"{file} is not a JSON object")
    return value


def _remedy(path: Path, unused: Collection[str]) -> str:
    if split := _SPLIT_GGUF.search(path.name):
        return f"it is one of {int(split[1])} parts of a split GGUF: join them with llama-gguf-split --merge"
    for mark, remedy in _WRAPPERS.items():
        if any(f".{mark}" in f".{key}" for key in unused):
            return remedy
    return "copy or save the model again, with the config that it was trained with"


def _refuse_adapter(folder: Path) -> None:
    """Raises InvalidModel on an adapter, alone or beside a model: transformers would apply it without a word."""
    file = folder / "adapter_config.json"
    if not file.exists():
        return
    if (folder / "config.json").is_file() or any(folder.glob("*.gguf")):
        raise InvalidModel(
            f"{folder} has an adapter beside the model ({file.name}), which would change the base model; remove it, or "
            "merge it into the model (merge_and_unload)"
        )
    base = json_of(file).get("base_model_name_or_path")
    raise InvalidModel(f"{folder} is an adapter, not a model; give its base model ({base}), or a merged one")


def _parts(index: Path) -> set[str]:
    try:
        return set(map(str, json_of(index)["weight_map"].values()))
    except (KeyError, AttributeError) as fault:
        raise InvalidModel(f"{index} is not an index of safetensors files") from fault


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
