"""At load: what packs or caches must give each sequence the logits that the model gives it alone, with its own
attention. Compared on a few random sequences, and with short windows, so that they go past them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sealkit.backends.positions import context_length
from sealkit.errors import InvalidModel

_BEGINNING, _OTHER = 14, 9
_WINDOW = 4
_WINDOWS = ("sliding_window", "attention_chunk_size")
_TOLERANCE = 1e-3
# In half precision the rounding of a product with other rows may send a token to another expert, so single tokens may
# be far off: the median token counts.
_HALF_TOLERANCE = 0.1


def probes(model: PreTrainedModel, longest: int) -> list[list[int]]:
    """Three texts of random tokens: one of `longest`, if the model reads that many; its beginning; and another."""
    size = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(size, (longest + _OTHER,), generator=draw).tolist()
    return [ids[: min(longest, context_length(model.config))], ids[:_BEGINNING], ids[longest:]]


@torch.no_grad()
def own_logits(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits [tokens, vocabulary] of each of `probes`, read alone by the model as it was loaded. Raises
    InvalidModel if a token's logits depend on later ones: such a model is not causal, or changes with the length."""
    with short_windows(model):
        whole, beginning, other = (
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0] for ids in texts
        )
    if not (off := _distance([beginning], [whole[: len(beginning)]])) <= _tolerance(whole.dtype):
        raise InvalidModel(f"the logits of a token change with the tokens after it (by {off:.0%})")
    return [whole, beginning, other]


def check_same(ours: Sequence[Tensor], own: Sequence[Tensor]) -> None:
    """Raises InvalidModel if the logits `ours`, [tokens, vocabulary] of each text, are not `own`."""
    if not (off := _distance(ours, own)) <= _tolerance(own[0].dtype):  # never true of NaN
        raise InvalidModel(f"sequences do not get the logits that its own attention gives them alone ({off:.0%} off)")


@contextmanager
def short_windows(model: PreTrainedModel) -> Iterator[None]:
    """Shortens the windows from which the model makes its masks."""
    config = model.config.get_text_config()
    kept = {name: getattr(config, name) for name in _WINDOWS if isinstance(getattr(config, name, None), int)}
    for name in kept:
        setattr(config, name, _WINDOW)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(config, name, value)


@contextmanager
def refusing(model: PreTrainedModel, what: str) -> Iterator[None]:
    """Turns errors of the model's code within into InvalidModel that says it cannot be `what` (trained, decoded) here.

    These are the kinds that code raises on input that it was not written for: an argument, attribute, entry, shape or
    operation that is missing. Any other is raised as it is, and so is memory that does not suffice: neither says
    anything about the model.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except InvalidModel as fault:
        raise InvalidModel(f"{type(model).__name__} cannot be {what} here: {fault.message}") from fault
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as fault:
        raise InvalidModel(
            f"{type(model).__name__} cannot be {what} here: its code stops with {type(fault).__name__}: {fault}"
        ) from fault


def _distance(ours: Sequence[Tensor], own: Sequence[Tensor]) -> float:
    """Largest relative L2 distance, over the sequences, of their logits up to a constant: of the worst token, in half
    precision of the median one."""
    worst = []
    for left, right in zip(ours, own, strict=True):
        x, y = (logits.double() - logits.double().mean(-1, keepdim=True) for logits in (left.to(right.device), right))
        each = (x - y).norm(dim=-1) / y.norm(dim=-1).clamp(min=1e-30)
        worst.append(each.median() if _half(right.dtype) else each.max())
    return float(torch.stack(worst).max())


def _tolerance(dtype: torch.dtype) -> float:
    return _HALF_TOLERANCE if _half(dtype) else _TOLERANCE


def _half(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)
