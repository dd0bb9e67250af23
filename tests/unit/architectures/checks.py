"""An architecture trained and decoded here, and by PEFT and transformers."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.decoding.row import Row
from sealkit.backends.lora import LoraWeights, dump_adapter, find_targets, target_names
from sealkit.backends.models import LoadedModel
from sealkit.backends.peft_reading import unread_targets
from sealkit.backends.positions import context_length
from sealkit.errors import InvalidModel
from sealkit.testing.tiny import make_tiny_tokenizer
from sealkit.types import LoraConfig, ModelInfo, Optimisation, Sampling
from tests.unit.architectures.table import VOCABULARY, Architecture
from tests.unit.trainer.plain import batch_loss, relative, trained_weights
from trainer_svc.encoding import Encoded
from trainer_svc.optimiser import Update, commit
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part

RATE = 1e-3
NEW_TOKENS = 8
_PROMPTS = ([5, 9, 33, 12], [7, 7, 7, *range(40, 49)], [11, 50, 21, 22, 23, 60, 61])


def training_fault(architecture: Architecture, folder: Path) -> str:
    """What is wrong with the training of an architecture; empty: two steps of AdamW on packed sequences change an
    adapter as PEFT does on each alone, after PEFT has read the adapter as it is written; or it is refused as said."""
    base = architecture.build(torch.float64)
    try:
        packed = PackedModel(copy.deepcopy(base))
    except InvalidModel as refusal:
        return _refused(architecture, refusal, architecture.trained)
    if architecture.trained:
        return f"it is trained, but should be refused: {architecture.trained}"
    start = _adapter(packed.model, packed.target_names)
    adapter = packed.trainable(start, Optimisation(learning_rate=RATE))
    batches = [_sequences(seed) for seed in (1, 2)]
    for batch in batches:
        packed.forward_backward([Part(batch, adapter)])
        commit([Update(adapter, closes=True, learning_rate=RATE)])
    theirs = _trained_by_peft(base, start, batches, folder)
    off = relative(_change(adapter.weights().tensors, start), _change(theirs, start))
    return "" if off < 1e-6 else f"the change of the adapter is {off:.1e} off PEFT's"


def decoding_fault(architecture: Architecture, folder: Path) -> str:
    """What is wrong with the decoding of an architecture; empty: greedy rows of the base and of an adapter in one batch
    get what transformers' generate gives each alone; or it is refused as said."""
    base = architecture.build(torch.float32)
    base.generation_config.eos_token_id = None
    unread = unread_targets(base)
    names = tuple(name for name in target_names(base) if name not in unread)
    weights = _adapter(base, names) if names else None
    try:
        engine = Engine(loaded(copy.deepcopy(base)), max_rows=4, max_rank=64)
    except InvalidModel as refusal:
        return _refused(architecture, refusal, architecture.decoded)
    if architecture.decoded:
        return f"it is decoded, but should be refused: {architecture.decoded}"
    adapters = (Adapter.of("a", weights, torch.float32),) if weights else ()
    first, second, third = _PROMPTS
    asked: list[tuple[list[int], tuple[Adapter, ...]]] = [
        (first, ()),
        (second, adapters),
        (second, ()),
        (third, adapters),
    ]
    waiting = [Row(list(prompt), Sampling(temperature=0), on_top, limit=NEW_TOKENS) for prompt, on_top in asked]
    rows = list(waiting)
    while waiting or engine.running:
        joining, waiting = waiting[: engine.free], waiting[engine.free :]
        if joining:
            engine.admit(joining)
        if engine.running:
            engine.step()
    expected = [_generated(base, row.prompt) for row in rows]
    if weights:
        reader = _read_by_peft(base, weights, folder)
        expected = [_generated(reader, r.prompt) if r.adapters else e for r, e in zip(rows, expected, strict=True)]
    wrong = sum(row.tokens != tokens for row, tokens in zip(rows, expected, strict=True))
    return f"{wrong} of {len(rows)} texts are not those of generate" if wrong else ""


def loaded(model: PreTrainedModel) -> LoadedModel:
    """As `load_model` returns it; no token ends a text."""
    tokenizer = make_tiny_tokenizer()
    info = ModelInfo(
        name="", digest="", tokenizer_digest="", context_length=context_length(model.config), dtype="", device="cpu"
    )
    return LoadedModel(model, tokenizer, info, Path(), end_ids=frozenset())


def _refused(architecture: Architecture, refusal: InvalidModel, expected: str) -> str:
    named = type(architecture.build(torch.float32)).__name__ in refusal.message
    return "" if named and expected and expected in refusal.message else f"refused: {refusal.message}"


def _adapter(model: PreTrainedModel, names: tuple[str, ...]) -> LoraWeights:
    draw = torch.Generator().manual_seed(5)
    tensors = {
        path: (
            torch.randn(3, linear.in_features, generator=draw) * 0.1,
            torch.randn(linear.out_features, 3, generator=draw) * 0.1,
        )
        for path, linear in find_targets(model, names).items()
    }
    return LoraWeights(LoraConfig(rank=3, alpha=6, target_modules=names), tensors)


def _sequences(seed: int) -> tuple[Encoded, ...]:
    """Three, of different length, one of them longer than any window."""
    draw = random.Random(seed)
    made = []
    for length in (draw.randint(4, 8), 17, draw.randint(4, 12)):
        ids = tuple(draw.randrange(3, VOCABULARY) for _ in range(length))
        made.append(Encoded(ids, tuple(range(draw.randint(1, length - 1), length))))
    return tuple(made)


def _read_by_peft(base: PreTrainedModel, weights: LoraWeights, folder: Path, *, trainable: bool = False) -> Any:
    """PEFT's model, from the files of the adapter as they are."""
    folder.mkdir(exist_ok=True)
    for name, content in dump_adapter(weights, "base").items():
        (folder / name).write_bytes(content)
    return PeftModel.from_pretrained(base, folder, is_trainable=trainable, autocast_adapter_dtype=False)


def _trained_by_peft(
    base: PreTrainedModel, start: LoraWeights, batches: list[tuple[Encoded, ...]], folder: Path
) -> Any:
    model = _read_by_peft(base, start, folder, trainable=True).eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, foreach=False)
    for batch in batches:
        optimiser.zero_grad()
        labels = sum(len(sequence.labels) for sequence in batch)
        for sequence in batch:  # alone: padded ones get NaN from eager attention with a window
            (batch_loss(model, [sequence]) * len(sequence.labels) / labels).backward()
        optimiser.step()
    return trained_weights(model, start)


def _change(after: Any, start: LoraWeights) -> dict[str, tuple[torch.Tensor, ...]]:
    return {
        path: tuple(x.double() - y.double() for x, y in zip(after[path], pair, strict=True))
        for path, pair in start.tensors.items()
    }


def _generated(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    whole = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )
    found: list[int] = whole[0, len(prompt) :].tolist()
    return found
