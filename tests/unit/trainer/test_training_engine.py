"""Jobs that fail, leave, wait or do not fit, and what their neighbours notice: nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch
from prometheus_client import REGISTRY

from sealkit.backends.lora import LoraWeights
from sealkit.errors import (
    Cancelled,
    GpuMemory,
    NonFiniteLoss,
    QueueFull,
    Unavailable,
    UnknownTargetModule,
)
from sealkit.types import Occupancy
from tests.unit.trainer.jobs import PROBE, job_spec, packed
from tests.unit.trainer.plain import relative
from trainer_svc.adapter import initial_weights
from trainer_svc.build import Built
from trainer_svc.engine import Engine
from trainer_svc.service import TrainerService
from trainer_svc.settings import TrainerSettings


@pytest.fixture(scope="module")
def model(folders):
    return packed(folders["llama"])


def run(engine, *specs):
    jobs = [engine.submit(spec) for spec in specs]
    engine.start()
    return [job.result.result(timeout=60) for job in jobs]


def poisoned(model, seed: int = 3):
    spec = job_spec(3, seed)
    fresh = initial_weights(spec.lora, model.find_targets(spec.lora.target_modules), seed)
    bad = {path: (a, torch.full_like(b, torch.nan)) for path, (a, b) in fresh.tensors.items()}
    return job_spec(3, seed, start=LoraWeights(spec.lora, bad))


@pytest.mark.parametrize("bad", ["nan weights", "overflowing gradient"])
def test_a_diverging_job_fails_alone(model, make_engine, bad):
    good = [job_spec(3, 1), job_spec(4, 2, kl_beta=0.1)]
    expected = run(make_engine(model), *good)
    engine = make_engine(model)
    neighbours = [engine.submit(spec) for spec in good]
    sick = engine.submit(poisoned(model) if bad == "nan weights" else job_spec(3, 3, lora={"alpha": 1e250}))
    engine.start()
    with pytest.raises(NonFiniteLoss, match="diverged") as failure:
        sick.result.result(timeout=60)
    assert failure.value.metadata["step"] == "1"
    for job, alone in zip(neighbours, expected, strict=True):
        trained = job.result.result(timeout=60)
        assert relative(trained.weights.tensors, alone.weights.tensors) < 1e-9


def test_cancelling_frees_the_slot(model, make_engine):
    engine = make_engine(model, max_jobs=1)
    first_step = threading.Event()
    endless = engine.submit(job_spec(3, 1, epochs=10000), lambda _: first_step.set())
    waiting = engine.submit(job_spec(2, 2))
    also = engine.submit(job_spec(2, 3))
    engine.start()
    assert first_step.wait(30)
    engine.cancel(also)
    engine.cancel(endless)
    with pytest.raises(Cancelled):
        endless.result.result(timeout=30)
    with pytest.raises(Cancelled):
        also.result.result(timeout=30)
    assert waiting.result.result(timeout=30).losses


def test_a_full_queue_says_when_to_come_again(model, make_engine):
    engine = make_engine(model, max_jobs=1, max_waiting=1)
    for seed in (1, 2):
        engine.submit(job_spec(2, seed))
    with pytest.raises(QueueFull) as failure:
        engine.submit(job_spec(2, 3))
    assert failure.value.retry_after is not None
    assert failure.value.retry_after > 0


def test_an_unknown_target_fails_its_job_and_lists_what_there_is(model, make_engine):
    engine = make_engine(model)
    bad, good = engine.submit(job_spec(2, 1, lora={"target_modules": ("query",)})), engine.submit(job_spec(2, 2))
    engine.start()
    with pytest.raises(UnknownTargetModule, match="q_proj"):
        bad.result.result(timeout=30)
    assert good.result.result(timeout=30).losses


def test_every_job_gets_progress_and_its_share_of_the_device(model, make_engine):
    engine = make_engine(model)
    told = []
    job = engine.submit(job_spec(3, 1, epochs=2), told.append)
    other = engine.submit(job_spec(3, 2))
    engine.start()
    trained = job.result.result(timeout=60)
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6]
    assert {p.total_steps for p in told} == {6}
    assert tuple(p.loss for p in told) == trained.losses
    assert trained.device_seconds > 0
    assert other.result.result(timeout=60).device_seconds > 0


class SmallMemory:
    """A model on a device that holds `tokens` tokens of a step."""

    def __init__(self, model, tokens: int) -> None:
        self._model, self._tokens = model, tokens
        self.steps: list[int] = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def forward_backward(self, parts):
        self.steps.append(tokens := sum(part.tokens for part in parts))
        if tokens > self._tokens:
            # Half of the backward pass is done when memory runs out.
            self._model.forward_backward(parts[: len(parts) // 2 or 1])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._model.forward_backward(parts)


def test_a_step_that_does_not_fit_is_split_and_nobody_lost(model, make_engine):
    specs = [job_spec(4, seed, gradient_accumulation_steps=2) for seed in (1, 2, 3, 4)]
    expected = run(make_engine(model), *specs)
    small = SmallMemory(model, 25)
    for trained, alone in zip(run(make_engine(small), *specs), expected, strict=True):
        assert relative(trained.weights.tensors, alone.weights.tensors) < 1e-9
    assert max(small.steps[-4:]) <= 25, "the budget follows what fits"


def test_a_job_that_never_fits_is_told_so(model, make_engine):
    engine = make_engine(SmallMemory(model, 40))
    big = engine.submit(job_spec(10, 1, batch_size=10))
    small = engine.submit(job_spec(2, 2))
    engine.start()
    with pytest.raises(GpuMemory, match="micro-batch of"):
        big.result.result(timeout=30)
    assert small.result.result(timeout=30).losses


class Broken(SmallMemory):
    def forward_backward(self, parts):
        raise ZeroDivisionError("a bug")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_fails_all_jobs_at_once_and_admits_no_more(model, make_engine):
    engine = make_engine(Broken(model, 0))
    jobs = [engine.submit(job_spec(2, seed)) for seed in (1, 2)]
    engine.start()
    for job in jobs:
        with pytest.raises(ZeroDivisionError):
            job.result.result(timeout=30)
    with pytest.raises(Unavailable, match="a bug"):
        engine.submit(job_spec(2, 3))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_service_works_as_long_as_its_engine_lives(model, make_engine):
    broken, closed = make_engine(Broken(model, 0)), make_engine(model)
    for engine in (broken, closed):
        service = TrainerService(TrainerSettings(model="none", store_url="memory://none"))
        service._built = Built(None, engine)
        engine.start()
        working = asyncio.ensure_future(service.work())
        await asyncio.sleep(0)
        assert not working.done()
        if engine is broken:
            engine.submit(job_spec(2, 1))
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await asyncio.wait_for(working, 30)
        else:
            engine.close()
            await asyncio.wait_for(working, 30)


def test_a_caller_that_leaves_does_not_end_the_job_itself(model, make_engine):
    """The future is the engine's: ended by a caller in the middle of a step, it would take the engine down."""
    engine = make_engine(model)
    job = engine.submit(job_spec(2, 1))
    assert not job.result.cancel()
    engine.start()
    assert job.result.result(timeout=30).losses


def test_metrics_add_up(model, make_engine):
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"seal_trainer_{name}", labels) or 0

    counters = ["steps_total", "wait_seconds_count", "train_seconds_count", "step_occupancy_ratio_count"]
    before = {name: value(name) for name in counters}
    charged = {r: value("device_seconds_total", result=r) for r in ("trained", "NON_FINITE_LOSS")}
    engine = make_engine(model, max_jobs=4, step_tokens=64)
    jobs = [engine.submit(spec) for spec in (job_spec(3, 1), job_spec(3, 2), poisoned(model))]
    assert value("jobs", state="waiting") == 3
    engine.start()
    device = sum(job.result.result(timeout=30).device_seconds for job in jobs[:2])
    with pytest.raises(NonFiniteLoss):
        jobs[2].result.result(timeout=30)
    assert value("device_seconds_total", result="trained") - charged["trained"] == pytest.approx(device)
    assert value("device_seconds_total", result="NON_FINITE_LOSS") > charged["NON_FINITE_LOSS"]
    engine.close()
    gained = {name: value(name) - before[name] for name in counters}
    assert gained["wait_seconds_count"] == gained["train_seconds_count"] == 3
    assert gained["steps_total"] == gained["step_occupancy_ratio_count"] >= 6
    assert value("jobs", state="waiting") == value("jobs", state="running") == value("slot_occupancy_ratio") == 0


def test_it_says_how_busy_it_is(model, make_engine):
    engine = make_engine(model, max_jobs=2, step_tokens=64)
    seen = []
    jobs = [engine.submit(job_spec(3, n), lambda _: seen.append(engine.occupancy)) for n in range(3)]
    idle = Occupancy(running=0, capacity=2, waiting=3, step_tokens=0, step_tokens_limit=64)
    assert engine.occupancy == idle
    engine.start()
    for job in jobs:
        job.result.result(timeout=30)
    assert (seen[0].running, seen[0].waiting) == (2, 1)
    assert all(0 < one.step_tokens <= 64 for one in seen)
    assert engine.occupancy == idle.changed(waiting=0)


def test_closing_ends_what_is_left(model):
    engine = Engine(model, PROBE)
    job = engine.submit(job_spec(3, 1, epochs=10000))
    engine.start()
    engine.close()
    with pytest.raises(Unavailable, match="shutting down"):
        job.result.result(timeout=1)
    with pytest.raises(Unavailable):
        engine.submit(job_spec(2, 2))


class CrowdedEngine(Engine):
    """An engine on a device with room for one adapter."""

    def _make_adapter(self, spec, policy):
        if self._running or spec.lora.rank > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super()._make_adapter(spec, policy)


def test_without_room_for_its_adapter_a_job_waits_until_others_have_left(model):
    engine = CrowdedEngine(model, PROBE)
    jobs = [engine.submit(job_spec(2, seed)) for seed in (1, 2, 3)]
    hopeless = engine.submit(job_spec(2, 4, lora={"rank": 200}))
    engine.start()
    for job in jobs:
        assert job.result.result(timeout=30).losses
    with pytest.raises(GpuMemory, match="rank 200"):
        hopeless.result.result(timeout=30)
    engine.close()
