"""KL(base || subject) of adapters: base and subject are read in one batch, without decoding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.lora import Adapter
from sealkit.errors import FailedPrecondition

_LOGITS = 1 << 26
"""Logits in memory at once: 256 MiB in float32, and about three times that while they are compared."""


def parts_of(texts: Sequence[Sequence[int]], vocabulary: int) -> list[list[int]]:
    """Indices of the texts (tokens), grouped into batches of similar length whose logits fit into memory together."""
    parts: list[list[int]] = []
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
        longest = len(texts[parts[-1][0]]) if parts else 0
        if not parts or 2 * (len(parts[-1]) + 1) * longest * vocabulary > _LOGITS:
            parts.append([])
        parts[-1].append(place)
    return parts


def divergences(engine: Engine, texts: Sequence[Sequence[int]], adapters: tuple[Adapter, ...]) -> list[float]:
    """Mean KL(base || base with `adapters`) over the positions of each text, in nats a token.

    The texts are read in one batch, each once with the adapters and once without, right-padded (causal attention never
    sees the padding), longer ones in chunks. Raises FailedPrecondition if the logits are not finite.
    """
    if not adapters:
        return [0.0] * len(texts)
    lengths = torch.tensor([len(text) for text in texts])
    padded = torch.zeros((len(texts), int(lengths.max())), dtype=torch.long)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    nobody: tuple[Adapter, ...] = ()
    with engine.reading([nobody] * len(texts) + [adapters] * len(texts)) as model:
        sums = _sums(model, padded.to(model.device), lengths.to(model.device))
    means = (sums.cpu() / lengths).tolist()
    if not all(torch.isfinite(sums).tolist()):
        names = ", ".join(adapter.digest[:12] for adapter in adapters)
        raise FailedPrecondition(f"{names} gives logits that are not finite; nothing to compare")
    return [float(mean) for mean in means]


def _sums(model: PreTrainedModel, ids: Tensor, lengths: Tensor) -> Tensor:
    """Sum of the divergence over the positions of each text [n]; `ids` [n, longest]."""
    count, longest = ids.shape
    width = max(1, min(longest, _LOGITS // (2 * count * model.config.get_text_config().vocab_size)))
    positions = torch.arange(longest, device=ids.device)
    cache = DynamicCache()
    total = torch.zeros(count, dtype=torch.float64, device=ids.device)
    for start in range(0, longest, width):
        piece = ids[:, start : start + width].repeat(2, 1)
        logits = model(input_ids=piece, past_key_values=cache, use_cache=True).logits
        base, subject = (half.float().log_softmax(-1) for half in logits.split(count))
        each = (base.exp() * (base - subject)).sum(-1)
        inside = positions[None, start : start + width] < lengths[:, None]
        total += each.masked_fill(~inside, 0.0).sum(-1).double()
    return total
