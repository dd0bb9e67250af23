"""The deterministic engine: a row's logits are the same to the bit, alone and in any company."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sealkit.backends.decoding.engine import Engine, Left
from sealkit.backends.decoding.lora import Adapter
from sealkit.backends.decoding.row import Row
from sealkit.backends.decoding.stable import StableEngine
from sealkit.backends.lora import LoraWeights, find_targets
from sealkit.backends.models import LoadedModel, ModelSettings, load_model
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig, Sampling
from tests.unit.decode.test_positions import windowed

SHAPES = {"narrow": (3, ("q_proj", "down_proj")), "wide": (16, ("q_proj", "k_proj", "v_proj", "up_proj", "gate_proj"))}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that twelve rows take several."""
    monkeypatch.setattr("sealkit.backends.decoding.stable._TILE", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("stable") / "model", hidden=128, layers=2, context=512)


def watched(kind: type[Engine], loaded: LoadedModel) -> tuple[Engine, dict[Row, list[Tensor]]]:
    """An engine of 12 rows, and all logits that its rows were sampled from."""
    seen: dict[Row, list[Tensor]] = {}

    class Watched(kind):  # type: ignore[misc, valid-type]
        def _accept(self, slots: Sequence[int], rows: Sequence[Row], logits: Tensor) -> list[Left]:
            for row, own in zip(rows, logits, strict=True):
                seen.setdefault(row, []).append(own.clone())
            return super()._accept(slots, rows, logits)  # type: ignore[no-any-return]

    return Watched(loaded, max_rows=12, max_rank=4096), seen


def adapters_on(loaded: LoadedModel) -> list[tuple[Adapter, ...]]:
    """None, nine of two ranks, and each of them over a policy of one of the ranks."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for i in range(10):
        rank, names = SHAPES["wide" if i % 2 else "narrow"]
        tensors = {
            path: (
                torch.randn(rank, linear.in_features, generator=draw) * 0.1,
                torch.randn(linear.out_features, rank, generator=draw) * 0.1,
            )
            for path, linear in find_targets(loaded.model, names).items()
        }
        config = LoraConfig(rank=rank, alpha=rank, target_modules=names)
        made.append(Adapter.of(str(i) * 64, LoraWeights(config, tensors), loaded.model.dtype))
    policy, *trials = made
    return [(), (policy,), *((trial,) for trial in trials), *((policy, trial) for trial in trials)]


def make_rows(loaded: LoadedModel, count: int = 16) -> list[Row]:
    """Prompts of 1 to 150 tokens, some with a common beginning; unlike numbers of rows of an adapter."""
    draw = random.Random(4)
    beginning = [draw.randrange(3, 500) for _ in range(100)]
    settings = adapters_on(loaded)
    rows = []
    for i in range(count):
        own = [draw.randrange(3, 500) for _ in range(draw.choice((1, 20, 63, 64, 65, 130)))]
        prompt = beginning[: draw.choice((80, 100))] + own[:50] if i % 3 == 0 else own
        adapters = settings[0] if i % 5 == 0 else settings[4] if i % 4 == 0 else draw.choice(settings)
        temperature = float(i % 2)
        rows.append(Row(prompt, Sampling(temperature=temperature, seed=i), adapters, limit=draw.randint(2, 4)))
    return rows


def run(engine: Engine, rows: Sequence[Row]) -> None:
    """As the loop does: rows join while others are on their way."""
    waiting = list(rows)
    while waiting or engine.running:
        joining, waiting = waiting[: min(engine.free, 5)], waiting[min(engine.free, 5) :]
        if joining:
            engine.admit(joining)
        if engine.running:
            engine.step()


def compared(kind: type[Engine], folder: Path, dtype: Any) -> list[bool]:
    """Of each row: whether its logits alone and in two kinds of company are the same to the bit."""
    loaded = load_model(ModelSettings(model=str(folder), device="cpu", dtype=dtype))
    engine, seen = watched(kind, loaded)
    rows = make_rows(loaded)
    found: list[list[list[Tensor]]] = []
    order = list(range(len(rows)))
    for company in ("alone", "in order", "shuffled"):
        fresh = [Row(row.prompt, row.sampling, row.adapters, row.limit) for row in rows]
        if company == "shuffled":
            random.Random(9).shuffle(order)
        for group in [[row] for row in fresh] if company == "alone" else [[fresh[i] for i in order]]:
            run(engine, group)
        found.append([seen[row] for row in fresh])
    return [
        len(alone) == len(other) and all(torch.equal(a, o) for a, o in zip(alone, other, strict=True))
        for company in found[1:]
        for alone, other in zip(found[0], company, strict=True)
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_the_same_to_the_bit_in_any_company(folder: Path, dtype: str) -> None:
    assert all(compared(StableEngine, folder, dtype))


def test_so_are_those_of_a_model_with_a_window(folder: Path, tmp_path: Path) -> None:
    assert all(compared(StableEngine, windowed(folder, tmp_path / "windowed", 40), "bfloat16"))


def test_the_plain_engine_would_not_pass(folder: Path) -> None:
    assert not all(compared(Engine, folder, "bfloat16"))


def test_where_rows_are_not_treated_alike_they_are_decoded_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StableEngine, "_treats_rows_alike", lambda self: False)
    assert all(compared(StableEngine, folder, "bfloat16"))
