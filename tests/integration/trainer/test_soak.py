"""Five hundred mixed jobs through the trainer's process over gRPC: every one ends as it should, and nothing is left.

`SEAL_SOAK_SEED=7 pytest tests/integration/trainer -k soak` takes another seed; the seed is part of the test's name.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sealkit.backends.lora import LoraWeights, load_adapter
from sealkit.errors import SealError
from sealkit.rpc.services import TrainerClient
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import Policy, Progress, TrainingResult
from tests.integration.trainer.mixed_jobs import COUNTS, LIMITS, MixedJob, mixed_jobs
from tests.integration.trainer.process import TrainerProcess
from trainer_svc.build import build
from trainer_svc.settings import TrainerSettings

SEED = int(os.environ.get("SEAL_SOAK_SEED", "1"))
BASE = Policy(name="policies/base")
AT_ONCE = 24
NEIGHBOURS = 6
WARM = 150
MIB = 2**20


@dataclass(frozen=True)
class End:
    """How a job ended, and from when to when its caller had to do with it."""

    how: str
    began: float
    ended: float
    result: TrainingResult | None = None


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """float64, so that a job in company can be told from one alone to the last digits that are stored."""
    model = make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=32, layers=2, vocab=320, context=128)
    limits = {f"limits__{name}": str(value) for name, value in LIMITS.items()}
    own = {"model": str(model), "device": "cpu", "dtype": "float64", "threads": "1", "max_jobs": "8"}
    return {**own, **limits, "step_tokens": "512"}


@pytest.fixture
def trainer(settings: dict[str, str], tmp_path: Path) -> Iterator[TrainerProcess]:
    process = TrainerProcess(tmp_path, {**settings, "store_url": str(tmp_path / "store")})
    yield process
    process.kill()


@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [SEED])
async def test_soak(
    seed: int, settings: dict[str, str], trainer: TrainerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = mixed_jobs(seed)
    client = TrainerClient(trainer.address)
    await trainer.ready(client)
    began = time.monotonic()
    ends, warm_bytes = await _send(client, trainer, jobs)
    seconds = time.monotonic() - began
    grown = trainer.resident_bytes - warm_bytes
    metrics = await _quiet(trainer)
    with capsys.disabled():
        sys.stdout.write(f"\nsoak: seed {seed}, {len(jobs)} jobs in {seconds:.1f} s, memory {grown / MIB:+.1f} MiB\n")

    _check_ends(jobs, ends, metrics)
    assert grown < 24 * MIB
    _check_seconds(ends, metrics, seconds)
    await client.close()
    assert trainer.stop() == 0

    store = AdapterStore(str(tmp_path / "store"))
    assert set(store.list()) == {end.result.adapter.digest for end in ends if end.result}
    alone = TrainerSettings.model_validate({**_nested(settings), "store_url": str(tmp_path / "alone")})
    await _check_neighbours(jobs, ends, store, alone)


async def _send(client: TrainerClient, trainer: TrainerProcess, jobs: list[MixedJob]) -> tuple[list[End], int]:
    """Sends the jobs as they arrive, AT_ONCE at most; their ends, and the process's memory once WARM had ended."""
    places, ended, warm = asyncio.Semaphore(AT_ONCE), 0, 0

    async def one(job: MixedJob) -> End:
        nonlocal ended, warm
        try:
            return await _call(client, job)
        finally:
            places.release()
            ended += 1
            if ended == WARM:
                warm = trainer.resident_bytes

    tasks = []
    for job in jobs:
        await asyncio.sleep(job.gap)
        await places.acquire()
        tasks.append(asyncio.create_task(one(job)))
    return await asyncio.gather(*tasks), warm


async def _call(client: TrainerClient, job: MixedJob) -> End:
    """One caller, who leaves where the job says so."""
    began = time.monotonic()
    updates = client.train_adapter(BASE, job.spec, owner=job.owner)
    how, result = "no result", None
    try:
        async with asyncio.timeout(job.gap if job.end == "left while waiting" else None), aclosing(updates):
            async for update in updates:
                if isinstance(update, TrainingResult):
                    how, result = "cached" if update.cached else "trained", update
                elif job.end == "left while training":
                    assert isinstance(update, Progress)
                    how = job.end
                    break
    except TimeoutError:
        how = "left while waiting"
    except SealError as error:
        how = error.reason
    return End(how, began, time.monotonic(), result)


async def _quiet(trainer: TrainerProcess) -> dict[tuple[str, str], float]:
    """The metrics once the engine has dropped those whose callers left."""
    async with asyncio.timeout(20):
        while True:
            metrics = await asyncio.to_thread(trainer.metrics)
            if not any(metrics["seal_trainer_jobs", state] for state in ("running", "waiting")):
                return metrics
            await asyncio.sleep(0.1)


def _check_ends(jobs: list[MixedJob], ends: list[End], metrics: dict[tuple[str, str], float]) -> None:
    """Every job ended as it should: in its caller's eyes, and in the trainer's."""
    assert Counter(end.how for end in ends) == COUNTS
    wrong = [(job, end.how) for job, end in zip(jobs, ends, strict=True) if end.how not in (job.end, "cached")]
    assert not wrong
    counted = {label: n for (name, label), n in metrics.items() if name == "seal_trainer_jobs_ended_total"}
    # A caller may leave before its call has reached the trainer; a repeat may come while the first is in the making.
    assert COUNTS["left while training"] <= counted.pop("cancelled") <= sum(COUNTS[e] for e in COUNTS if "left" in e)
    assert counted.pop("cached") <= COUNTS["cached"]
    assert counted == {reason: n for reason, n in COUNTS.items() if reason in counted}
    assert len(counted) == len(COUNTS) - 3
    assert metrics["seal_trainer_slot_occupancy_ratio", ""] == 0


def _check_seconds(ends: list[End], metrics: dict[tuple[str, str], float], wall: float) -> None:
    """What was charged to jobs is what the engine was busy for, and the callers' bills are the trained jobs' part."""
    charged = {label: n for (name, label), n in metrics.items() if name == "seal_trainer_device_seconds_total"}
    busy = metrics["seal_trainer_busy_seconds_total", ""]
    assert sum(charged.values()) == pytest.approx(busy, rel=0.02)
    assert busy <= wall
    billed = sum(end.result.usage.device_seconds for end in ends if end.result)
    assert billed == pytest.approx(charged["trained"])
    assert charged["CANCELLED"] > 0
    assert charged["NON_FINITE_LOSS"] > 0


async def _check_neighbours(jobs: list[MixedJob], ends: list[End], store: AdapterStore, alone: TrainerSettings) -> None:
    """Those that had most to do with diverging jobs have the digest and the weights that they get alone."""
    sick = [end for end in ends if end.how == "NON_FINITE_LOSS"]

    def shared(end: End) -> float:
        return sum(max(0.0, min(end.ended, other.ended) - max(end.began, other.began)) for other in sick)

    trained = [(end, job) for end, job in zip(ends, jobs, strict=True) if end.how == "trained"]
    neighbours = sorted(trained, key=lambda pair: shared(pair[0]))[-NEIGHBOURS:]
    assert all(shared(end) > 0 for end, _ in neighbours)
    torch.set_num_threads(1)
    built = await asyncio.to_thread(build, alone)
    try:
        for end, job in neighbours:
            assert end.result is not None
            *_, result = [u async for u in built.trainer.train_adapter(BASE, job.spec, job.owner)]
            assert isinstance(result, TrainingResult)
            digest = result.adapter.digest
            assert digest == end.result.adapter.digest
            assert result.final_loss == pytest.approx(end.result.final_loss, rel=1e-9)
            theirs = load_adapter(AdapterStore(alone.store_url).fetch(digest))
            assert _difference(load_adapter(store.fetch(digest)), theirs) < 1e-6
    finally:
        built.engine.close()


def _difference(ours: LoraWeights, theirs: LoraWeights) -> float:
    """Relative L2; what is stored is float32."""
    assert ours.tensors.keys() == theirs.tensors.keys()
    left, right = (
        torch.cat([t.double().flatten() for p in sorted(w.tensors) for t in w.tensors[p]]) for w in (ours, theirs)
    )
    return float((left - right).norm() / right.norm())


def _nested(settings: dict[str, str]) -> dict[str, object]:
    limits = {key.removeprefix("limits__"): value for key, value in settings.items() if key.startswith("limits__")}
    return {**{key: value for key, value in settings.items() if not key.startswith("limits__")}, "limits": limits}
