"""Base models: loaded, compared with their files and tokenizers, described, exported; for trainer and decoder alike.

checkpoint  which files are a model, and its digest
template    prompts rendered to tokens, and what ends a turn
positions   how long a sequence may be
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from sealkit.backends.build import build_facts
from sealkit.backends.checkpoint import check_filled, check_types, locate, weights_digest
from sealkit.backends.loading import Loading
from sealkit.backends.positions import context_facts, context_length
from sealkit.backends.template import DEFAULT_DATE, PROBE, end_tokens, pin_date, render_prompt
from sealkit.errors import GpuMemory, InvalidConfig, InvalidInput, InvalidModel, SealError
from sealkit.types import ModelInfo, PromptFormat

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_LOAD_FAULTS = Exception
"""What transformers, tokenizers and safetensors raise on a folder or file that is not a complete model: they name no
classes, and tokenizers raises Exception itself."""
_MOST_REASON = 300


class ModelSettings(BaseModel):
    """Which base model a process loads, and where. Mixed into the settings of each service with a model."""

    model: str = Field(description="A Hugging Face folder, a hub id or a .gguf file.")
    device: str = Field("auto", description="`cpu`, `cuda:0`, …; `auto` takes a GPU if there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto", description="Element type in memory; `auto` is bfloat16 where it is faster, else float32."
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 keeps torch's default.")
    template_date: date = Field(
        DEFAULT_DATE,
        description="The date that a chat template prints as today's, if it prints one.",
    )


@dataclass(frozen=True)
class LoadedModel:
    """A base model in memory: in eval mode, no parameter requires a gradient. `end_ids`: the tokens that end a
    completion."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo
    path: Path
    end_ids: frozenset[int]

    @property
    def embedded(self) -> int:
        """Number of tokens that the model has an embedding for."""
        embedding: Any = self.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    def check_tokens(self, what: str, tokens: Iterable[int]) -> None:
        """Raises InvalidInput if the tokenizer made a token that the model's embedding lacks."""
        if (worst := max(tokens, default=0)) >= (rows := self.embedded):
            raise InvalidInput(
                f"{what} contains {self.tokenizer.convert_ids_to_tokens(worst)!r} (token {worst}), which the model "
                f"cannot read: it embeds {rows} tokens; take it out of the text",
                metadata={"token": str(worst), "embedded": str(rows)},
            )

    def with_build(self, **facts: str) -> LoadedModel:
        """The same, with more facts in its `info.build`."""
        return replace(self, info=self.info.model_copy(update={"build": self.info.build | facts}))


def load_model(settings: ModelSettings, loading: Loading | None = None) -> LoadedModel:
    """Loads the model that `settings` name, stored as `loading` says. Sets torch's CPU threads if `settings.threads` >
    0.

    Only safetensors and GGUF weights are read, and no code from the model's folder runs. Raises InvalidModel with the
    missing file and its place, or with what the files, the model and its tokenizer disagree about; InvalidConfig if
    `loading` is not possible here; GpuMemory if the device has too little memory.
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
        _move(model, device)
    described, end_ids = _describe(settings.model, path, model.config, tokenizer, settings.template_date)
    build = described.build | build_facts(device)
    info = described.changed(dtype=loading.dtype_name(dtype), device=str(device), build=build)
    loaded = LoadedModel(model, tokenizer, info, path, end_ids)
    return loaded.with_build(**_compare_vocabularies(path, tokenizer, loaded.embedded))


class Described(NamedTuple):
    """A model without its weights."""

    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo
    end_ids: frozenset[int]


def describe_model(model: str, *, template_date: date = DEFAULT_DATE) -> Described:
    """A model that a server has loaded, from the local copy `model`. The digests are those of `load_model`; no weights
    are loaded. Raises InvalidModel."""
    path = locate(model)
    folder, options = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except _LOAD_FAULTS as fault:
        raise InvalidModel(f"{path} has no readable tokenizer and config: {_reason(fault)}") from fault
    info, end_ids = _describe(model, path, config, tokenizer, template_date)
    build = info.build | _compare_vocabularies(path, tokenizer, int(config.get_text_config().vocab_size))
    return Described(tokenizer, info.changed(build=build), end_ids)


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


def _describe(
    model: str, path: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, today: date
) -> tuple[ModelInfo, frozenset[int]]:
    """What is known of a model without its weights, and the tokens that end a completion. Pins the template's date."""
    facts = {"template_date": today.isoformat()} if pin_date(tokenizer, today) else {}
    tokenizer_digest = _tokenizer_digest(path, tokenizer)
    end_ids = end_tokens(path, config, tokenizer)
    info = ModelInfo(
        name=path.name if Path(model).exists() else model,
        digest=weights_digest(path, tokenizer_digest, end_ids - {tokenizer.eos_token_id}),
        tokenizer_digest=tokenizer_digest,
        context_length=context_length(config),
        dtype="served",
        device="served",
        build=facts | context_facts(config),
    )
    return info, end_ids


def _compare_vocabularies(path: Path, tokenizer: PreTrainedTokenizerBase, embedded: int) -> dict[str, str]:
    """A build fact if the tokenizer has tokens that the model does not embed. Raises InvalidModel if every prompt or
    text needs one of them."""
    beyond = {token: text for text, token in tokenizer.get_vocab().items() if token >= embedded}
    if not beyond:
        return {}
    forms = [PromptFormat.PLAIN, *([PromptFormat.CHAT] if tokenizer.chat_template else [])]
    needed = {token for form in forms for token in render_prompt(tokenizer, PROBE.changed(format=form))}
    needed.add(int(tokenizer.eos_token_id))
    if lacking := sorted(needed.intersection(beyond)):
        raise InvalidModel(
            f"the tokenizer of {path} has {beyond[lacking[0]]!r} as token {lacking[0]}, but the model embeds only "
            f"{embedded} tokens; resize its embedding (resize_token_embeddings) and save both, or take the tokenizer "
            "that the model was trained with"
        )
    return {"unread_tokens": f"{len(beyond)}, from {beyond[min(beyond)]!r} on"}


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
    except SealError:
        raise
    except torch.OutOfMemoryError as fault:
        raise _too_big(path, fault) from fault
    except _LOAD_FAULTS as fault:
        raise InvalidModel(f"{path} has no causal language model that can be loaded: {_reason(fault)}") from fault
    return model, tokenizer


def _read_folder(
    path: Path, dtype: torch.dtype, loading: Mapping[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named by check_filled
        **options,
        **loading,
    )
    model, found = loaded
    check_filled(path, found)
    check_types(path, quantised=getattr(model, "hf_quantizer", None) is not None)
    return model, tokenizer


def _read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    dense = GgufConfig(gguf_file=path.name, dequantize=True)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=dtype, quantization_config=dense, output_loading_info=True, **options
    )
    packed, found = loaded
    check_filled(path, found)
    config = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    # transformers does not save a model that was loaded from GGUF, so the weights move to a plain one of the same
    # class.
    model: PreTrainedModel = type(packed)(type(packed.config)(**config))
    torch.nn.Module.to(model, dtype)
    model.load_state_dict(packed.state_dict())
    return model, tokenizer


def _move(model: PreTrainedModel, device: torch.device) -> None:
    try:
        torch.nn.Module.to(model, device)
    except torch.OutOfMemoryError as fault:
        raise _too_big(str(model.name_or_path), fault) from fault


def _too_big(model: Path | str, fault: torch.OutOfMemoryError) -> GpuMemory:
    return GpuMemory(f"{model} does not fit in the device's memory ({_reason(fault)}); take a smaller dtype or model")


def _reason(fault: BaseException) -> str:
    """An exception of a library in one line; with its name, if its message alone says little (`'nope'`)."""
    said = " ".join(str(fault).split())[:_MOST_REASON]
    return said if isinstance(fault, OSError | ValueError) and said else f"{type(fault).__name__}: {said}".rstrip(": ")


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


def _tokenizer_digest(path: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [rules, tokenizer.chat_template, str(tokenizer.eos_token_id), str(tokenizer.bos_token_id)]
    if backend is None:  # its vocabulary does not say how it splits
        files = (path / name for name in sorted(tokenizer.vocab_files_names.values()))
        parts += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
