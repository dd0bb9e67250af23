"""The logit probe: an adapter's logits after one fixed text. The trainer stores it with the adapter, and a service that
loads the adapter compares: file hashes prove that the bytes are intact, the probe that the right model is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor, log_softmax
from transformers import PreTrainedTokenizerBase

from sealkit.backends.template import text_tokens
from sealkit.errors import AdapterCorrupt, AdapterMismatch

PROBE_TEXT = "The name of the river that runs through the town is"
_VALUES = 16
_TOP = 8
# Root mean square of the difference by the largest logit expected. On SmolLM2-135M and 184 trained adapters an adapter
# differs from its own probe by at most 1e-5 in float32 and .018 in bfloat16; two adapters differ by .13 (median).
_TOLERANCE = {"float64": 5e-4, "float32": 5e-4, "bfloat16": 0.04, "float16": 0.04}


def probe_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of the fixed text."""
    return text_tokens(tokenizer, PROBE_TEXT)


def probe_of(logits: Tensor) -> tuple[float, ...]:
    """Values of `logits` [vocabulary] after the probe's last token, evenly apart, to four decimals."""
    return tuple(round(float(x), 4) for x in logits[:: max(1, len(logits) // _VALUES)].tolist())


def top_of(logits: Tensor) -> tuple[tuple[int, float], ...]:
    """The most likely tokens after the probe and their log-probabilities, in descending order: serving engines return
    these, but not logits."""
    values, tokens = log_softmax(logits.float(), -1).topk(min(_TOP, len(logits)))
    return tuple((int(token), round(float(value), 4)) for token, value in zip(tokens, values, strict=True))


class _Base(BaseModel):
    digest: str = ""
    dtype: str = ""


class Provenance(BaseModel):
    """The origin of an adapter, from its manifest; empty for adapters of other origin.

    `probe` was taken over the adapter `policy_digest`, if there is one.
    """

    base_model: _Base = _Base()
    policy_digest: str = ""
    probe: tuple[float, ...] = ()
    probe_top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, digest: str, manifest: Mapping[str, Any]) -> Provenance:
        """Raises AdapterCorrupt."""
        try:
            return cls.model_validate(manifest)
        except ValidationError as fault:
            where = ".".join(map(str, fault.errors()[0]["loc"]))
            raise AdapterCorrupt(f"adapter {digest}: {where} of its manifest cannot be read; train it again") from fault

    def check_base(self, digest: str, held: str) -> None:
        """Compares the adapter's base model with the loaded one, `held`. Raises AdapterMismatch."""
        base = self.base_model.digest
        if base not in ("", held):
            raise AdapterMismatch(
                f"adapter {digest} was trained on base model {base}, this process has {held}",
                metadata={"digest": digest, "expected": base, "found": held},
            )

    def check(self, digest: str, found: Sequence[float], dtype: str) -> None:
        """Compares the logits `found`, in element type `dtype`, with the probe, to the precision of the coarser of both
        types. A constant shift of all logits is ignored: it changes no text. Raises AdapterMismatch."""
        tolerance = max(_TOLERANCE.get(name, 0.0) for name in (dtype, self.base_model.dtype))
        if len(self.probe) == len(found):
            gaps = [f - e for f, e in zip(found, self.probe, strict=True)]
            shift = sum(gaps) / len(gaps)
            off = math.sqrt(sum((gap - shift) ** 2 for gap in gaps) / len(gaps)) / max(1.0, *map(abs, self.probe))
            if off <= tolerance:  # never true of NaN
                return
        raise AdapterMismatch(
            f"the weights under digest {digest} are not the trained ones: for the probe text the trainer got "
            f"logits {_shown(self.probe)}, this model gives {_shown(found)}. Delete the adapter and train it again",
            metadata={"digest": digest, "expected": _shown(self.probe), "found": _shown(found)},
        )


def probe_gap(stored: Sequence[tuple[int, float]], found: Mapping[int, float]) -> float:
    """Root mean square gap, in nats, of the stored tokens' log-probabilities to those found; a token that is not among
    the most likely ones there counts as the least likely of them, so the gap is never too large."""
    least = min(found.values(), default=-math.inf)
    gaps = [found.get(token, min(least, logprob)) - logprob for token, logprob in stored]
    return math.sqrt(sum(gap * gap for gap in gaps) / len(gaps))


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:4]) + ", …"
