"""Whether texts depend on company is ruled out, or measured and told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import prometheus_client
import pytest

from sealkit.backends.decoding.batch_invariance import PROMPTS, measure_batch_variance
from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.stable import StableEngine
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.store import AdapterStore
from sealkit.types import Prompt


async def test_the_rate_is_the_share_of_texts_that_company_changes() -> None:
    running = 0

    async def answer(prompt: Prompt) -> str:
        nonlocal running
        running += 1
        await asyncio.sleep(0)
        crowded = running > 1
        running -= 1
        return "other" if crowded and prompt in PROMPTS[:4] else "same"

    assert await measure_batch_variance(answer) == 4 / len(PROMPTS)


@pytest.mark.parametrize(
    ("dtype", "mode", "stable", "measured"),
    [
        ("float32", "auto", False, False),
        ("float32", "on", True, False),
        ("bfloat16", "auto", True, False),
        ("bfloat16", "off", False, True),
    ],
)
async def test_half_precision_is_deterministic_or_measured(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    mode: Literal["auto", "on", "off"],
    stable: bool,
    measured: bool,
) -> None:
    made: list[type] = []
    for kind in (Engine, StableEngine):

        def make(*args: Any, kind: type[Engine] = kind, **options: Any) -> Engine:
            made.append(kind)
            return kind(*args, **options)

        monkeypatch.setattr(f"sealkit.backends.transformers.{kind.__name__}", make)

    async def rate(_: object) -> float:
        return 0.25

    monkeypatch.setattr("sealkit.backends.transformers.measure_batch_variance", rate)
    settings = ModelSettings(model=str(model), device="cpu", dtype=dtype)
    backend = TransformersBackend(settings, AdapterStore(tmp_path.as_uri()), max_rows=4, deterministic=mode)
    await backend.start()
    await backend.close()
    assert made == [StableEngine if stable else Engine]
    assert backend.batch_variant_rate == (0.25 if measured else 0.0)
    assert prometheus_client.REGISTRY.get_sample_value("seal_decode_batch_variant_ratio") == backend.batch_variant_rate
