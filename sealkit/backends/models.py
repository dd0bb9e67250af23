"""Base models: found, checked, loaded, digested; and prompts rendered to tokens. One place for trainer and decoder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jinja2 import TemplateError
from pydantic import BaseModel, Field
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from sealkit.backends.build import build_facts
from sealkit.backends.loading import Loading
from sealkit.backends.reasoning import answer_prompt, checked_kwargs, markers_of
from sealkit.errors import InvalidConfig, InvalidInput, InvalidModel
from sealkit.types import ModelInfo, Prompt, PromptFormat

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PART = re.compile(r"[\w.-]+\.safetensors")
_ANSWER = "Answer: 42"
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
_LOAD_FAULTS = Exception
"""What transformers, tokenizers and safetensors raise on a folder or file that is not a complete model: they name no
classes, and tokenizers raises Exception itself."""


class ModelSettings(BaseModel):
    """Which base model a process loads, and where. Mixed into the settings of each service with a model."""

    model: str = Field(description="A Hugging Face folder, a hub id or a .gguf file.")
    device: str = Field("auto", description="`cpu`, `cuda:0`, …; `auto` takes a GPU if there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto", description="Element type in memory; `auto` is bfloat16 where it is faster, else float32."
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 keeps torch's default.")


@dataclass(frozen=True)
class LoadedModel:
    """A base model in memory: in eval mode, no parameter requires a gradient."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo
    path: Path

    def with_build(self, **facts: str) -> LoadedModel:
        """The same, with more facts in its `info.build`."""
        return replace(self, info=self.info.model_copy(update={"build": self.info.build | facts}))


def load_model(settings: ModelSettings, loading: Loading | None = None) -> LoadedModel:
    """Loads the model that `settings` name, stored as `loading` says. Sets torch's CPU threads if `settings.threads` >
    0.

    Only safetensors and GGUF weights are read, and no code from the model's folder runs. Raises InvalidModel with the
    missing file and its place; InvalidConfig if `loading` is not possible here.
    """
    loading = loading or Loading()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    path = locate(settings.model)
    options = loading.options(dtype, device)
    model, tokenizer = _read(path, dtype, options)
    torch.nn.Module.eval(model.requires_grad_(False))
    if not options:
        torch.nn.Module.to(model, device)
    tokenizer_digest = _tokenizer_digest(tokenizer)
    info = ModelInfo(
        name=path.name if Path(settings.model).exists() else settings.model,
        digest=_weights_digest(path, tokenizer_digest),
        tokenizer_digest=tokenizer_digest,
        context_length=int(getattr(model.config, "max_position_embeddings", 0) or 2048),
        dtype=loading.dtype_name(dtype),
        device=str(device),
        build=build_facts(device),
    )
    return LoadedModel(model, tokenizer, info, path)


def describe_model(model: str, *, dtype: str) -> tuple[PreTrainedTokenizerBase, ModelInfo]:
    """Tokenizer and description of a model that a server has loaded, from the local copy `model`. The digests are those
    of `load_model`; no weights are loaded. Raises InvalidModel."""
    path = locate(model)
    folder, options = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except _LOAD_FAULTS as fault:
        raise InvalidModel(f"{path} has no readable tokenizer and config: {fault}") from fault
    tokenizer_digest = _tokenizer_digest(tokenizer)
    return tokenizer, ModelInfo(
        name=path.name if Path(model).exists() else model,
        digest=_weights_digest(path, tokenizer_digest),
        tokenizer_digest=tokenizer_digest,
        context_length=int(getattr(config, "max_position_embeddings", 0) or 2048),
        dtype=dtype,
        device="served",
    )


def export_model(source: str, folder: Path, dtype: str = "bfloat16") -> Path:
    """Writes the model that `source` names (GGUF, folder or hub id) as a Hugging Face folder with safetensors.

    The folder is created atomically: written beside its place, then renamed. An existing one is left as it is. Raises
    InvalidModel.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    model, tokenizer = _read(locate(source), DTYPES[dtype], {})
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.chmod(0o755)
        for file in scratch.iterdir():
            file.chmod(
                0o644
            )  # safetensors writes files readable by their owner only, but containers run as another user
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, answering: bool = False) -> list[int]:
    """Token ids of `prompt`, up to where the completion begins; the same in training and in sampling. `answering` and
    errors: as in `rendered_text`."""
    text, special = rendered_text(tokenizer, prompt, answering=answering)
    return list(tokenizer(text, add_special_tokens=special).input_ids)


def rendered_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, answering: bool = False) -> tuple[str, bool]:
    """`prompt` as text, and whether the tokenizer must add its special tokens to it.

    CHAT: the tokenizer's chat template with its generation prompt, each shot as two turns; PLAIN: system text, shots
    (request, then answer) and user text, separated by blank lines, with the tokenizer's special tokens in front. AUTO
    is CHAT if there is a template. With `answering`, a thinking model's chat prompt ends behind an empty reasoning: for
    texts that are trained on or constrained by a grammar. Raises InvalidInput if the template is missing, rejects the
    messages, or does not have one of the prompt's arguments.
    """
    if prompt.format is PromptFormat.CHAT and not tokenizer.chat_template:
        raise InvalidInput("the prompt needs a chat template, but this model's tokenizer has none; use format plain")
    if prompt.format is PromptFormat.PLAIN or not tokenizer.chat_template:
        shots = [f"{shot.user}{shot.assistant}" for shot in prompt.shots]
        text = "\n\n".join([*([prompt.system] if prompt.system else []), *shots, prompt.user])
        return text, True
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for shot in prompt.shots:
        messages += [{"role": "user", "content": shot.user}, {"role": "assistant", "content": shot.assistant}]
    messages.append({"role": "user", "content": prompt.user})
    kwargs = checked_kwargs(tokenizer, prompt.chat_template_kwargs)
    try:
        text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **kwargs))
        if answering and markers_of(tokenizer):
            turn = [*messages, {"role": "assistant", "content": _ANSWER}]
            answered = str(tokenizer.apply_chat_template(turn, tokenize=False, **kwargs)).rpartition(_ANSWER)[0]
            text = answer_prompt(tokenizer, text, answered)
    except (TemplateError, TypeError, ValueError) as fault:
        raise InvalidInput(f"the model's chat template rejects the prompt: {fault}") from fault
    return text, False


def locate(model: str) -> Path:
    """The folder or .gguf file of `model`; a hub id is taken from the local cache or downloaded.

    Raises InvalidModel.
    """
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InvalidModel(
                f"{model} is a file but not *.gguf; give a Hugging Face folder, a hub id or a .gguf file"
            )
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InvalidModel(f"{model} is not a model folder: it has no config.json")
        if not any(path.glob("*.safetensors")):
            raise InvalidModel(f"{model} has no *.safetensors weights; convert the model to safetensors first")
        _check_parts(path)
        return path
    if path.is_absolute() or model.startswith((".", "~")) or not _HUB_ID.fullmatch(model):
        raise InvalidModel(f"there is no model at {model!r}; give a Hugging Face folder, a hub id or a .gguf file")
    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise InvalidModel(f"no folder named {model!r} here, and the hub does not provide it: {reason}") from fault


def _check_parts(folder: Path) -> None:
    """Raises InvalidModel if the index names anything but safetensors in the same folder."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        parts = set(map(str, json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise InvalidModel(f"{index} is not an index of safetensors files") from fault
    if strange := sorted(part for part in parts if not _PART.fullmatch(part)):
        raise InvalidModel(
            f"{index} names {strange[0][:200]!r}; only *.safetensors of the same folder are read, because a pickle can "
            "run code when it is read: convert the model to safetensors"
        )


def _read(
    path: Path, dtype: torch.dtype, loading: Mapping[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if loading and path.is_file():
        raise InvalidConfig(
            f"{path} is a GGUF file, which is always loaded dense on one device; export it to a folder first"
        )
    disable_progress_bar()  # type: ignore[no-untyped-call]  # a service's log is not a terminal
    try:
        model, tokenizer = _read_gguf(path, dtype) if path.is_file() else _read_folder(path, dtype, loading)
    except _LOAD_FAULTS as fault:
        reason = (str(fault).strip().splitlines() or [""])[0]
        if not isinstance(fault, OSError | ValueError | RuntimeError):
            reason = f"{type(fault).__name__}: {reason}"  # a KeyError, say, is only a word
        raise InvalidModel(
            f"{path} has no causal language model that can be loaded: {reason or type(fault).__name__}"
        ) from fault
    if tokenizer.eos_token_id is None:
        raise InvalidModel(f"the tokenizer of {path} has no end-of-sequence token; set eos_token in its config")
    return model, tokenizer


def _read_folder(
    path: Path, dtype: torch.dtype, loading: Mapping[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **options, **loading)
    return model, tokenizer


def _read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    dense = GgufConfig(gguf_file=path.name, dequantize=True)
    packed = AutoModelForCausalLM.from_pretrained(path.parent, dtype=dtype, quantization_config=dense, **options)
    config = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    # transformers does not save a model that was loaded from GGUF, so the weights move to a plain one of the same
    # class.
    model = type(packed)(type(packed.config)(**config))
    torch.nn.Module.to(model, dtype)
    model.load_state_dict(packed.state_dict())
    return model, tokenizer


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise InvalidModel(f"device {name!r} cannot be used here: {str(fault).splitlines()[0]}") from fault
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return DTYPES[name]
    return torch.bfloat16 if good_at_bfloat16(device) else torch.float32


def good_at_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Measured on Emerald Rapids with AMX hidden: avx512_bf16 products run at half the speed of float32 ones.
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [rules, tokenizer.chat_template, str(tokenizer.eos_token_id), str(tokenizer.bos_token_id)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weights_digest(path: Path, tokenizer_digest: str) -> str:
    files = [path] if path.is_file() else [path / "config.json", *sorted(path.glob("*.safetensors"))]
    total = hashlib.sha256(tokenizer_digest.encode())
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
