"""The continuous batch of training jobs: jobs join and leave at step boundaries, each as if it were trained alone.

    scheduler   chooses the jobs of the next step
    packed      one forward and one backward pass for all of them
    job         the state of one job: its optimiser, its progress, its result

Torch runs in the engine's own thread and nowhere else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import isfinite
from weakref import WeakValueDictionary

import structlog
import torch

from sealkit.errors import Cancelled, GpuMemory, QueueFull, SealError, Unavailable
from sealkit.observability import metrics
from sealkit.types import Occupancy, Progress
from trainer_svc.adapter import FrozenAdapter, TrainableAdapter, initial_weights
from trainer_svc.directions import Directions
from trainer_svc.encoding import Encoded
from trainer_svc.job import Job, JobSpec, Targets
from trainer_svc.optimiser import commit
from trainer_svc.packed import PackedModel
from trainer_svc.scheduler import Scheduler, next_to_join
from trainer_svc.teacher import Teacher

ENGINE_VERSION = "5"
"""Part of every adapter's digest; increment it when the same request would give different weights."""

log = structlog.get_logger(__name__)


class Engine:
    """Trains jobs on one frozen base. `probe`: the prompt whose last logits are stored with each finished adapter."""

    def __init__(
        self,
        model: PackedModel,
        probe: Encoded,
        *,
        max_jobs: int = 16,
        max_waiting: int = 256,
        step_tokens: int = 4096,
        target_bytes: int = 1 << 28,
    ) -> None:
        """`target_bytes`: size of the cache of soft targets."""
        self.model = model
        self._probe = probe
        self._max_jobs = max_jobs
        self._max_waiting = max_waiting
        self._step_tokens = step_tokens
        self._scheduler = Scheduler()
        self._teacher = Teacher(model, limit=target_bytes)
        self._directions = Directions(model)
        self._policies: WeakValueDictionary[str, FrozenAdapter] = WeakValueDictionary()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closing = False
        self._dead: BaseException | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._loop: Future[None] | None = None
        self._last_tokens = 0  # of the last step
        self._charged = 0.0  # until when the engine's time has been charged to jobs

    def start(self) -> None:
        """Starts the engine's thread."""
        self._loop = self._thread.submit(self._run)
        self._loop.add_done_callback(self._ended)

    def submit(self, spec: JobSpec, on_progress: Callable[[Progress], None] | None = None) -> Job:
        """Queues a job; `on_progress` is called in the engine's thread after each optimiser step.

        Its `result` raises Cancelled, NonFiniteLoss, GpuMemory, UnknownTargetModule. Raises QueueFull if too many jobs
        wait, Unavailable if the engine has stopped.
        """
        with self._changed:
            if self._dead or self._closing:
                raise Unavailable(f"the trainer's engine has stopped ({self._dead or 'closing'}); restart the trainer")
            if len(self._waiting) + len(self._running) >= self._max_waiting + self._max_jobs:
                raise QueueFull(
                    f"{len(self._waiting)} training jobs are already waiting; try again later or add a trainer",
                    metadata={"waiting": str(len(self._waiting)), "limit": str(self._max_waiting)},
                    retry_after=5.0,
                )
            job = Job(spec, on_progress)
            self._waiting.append(job)
            self._measure()
            self._changed.notify()
        return job

    @property
    def occupancy(self) -> Occupancy:
        """Jobs that train and wait, and the tokens of the last step; from any thread."""
        with self._changed:
            return Occupancy(
                running=len(self._running),
                capacity=self._max_jobs,
                waiting=len(self._waiting),
                step_tokens=self._last_tokens if self._running else 0,
                step_tokens_limit=self._step_tokens,
            )

    def cancel(self, job: Job) -> None:
        """Cancels a job; its slot is free at the next step."""
        job.cancel()
        with self._changed:
            self._changed.notify()

    async def ended(self) -> None:
        """Returns once the engine is closed; raises the error that its thread crashed with."""
        assert self._loop is not None, "the engine ends once it has started"
        await asyncio.shield(asyncio.wrap_future(self._loop))

    def close(self) -> None:
        """Stops after the current step; remaining jobs end with Unavailable. Blocks until then."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.shutdown(wait=True)

    # --- in the engine's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                idle = not (self._waiting or self._running)
                self._changed.wait_for(lambda: self._closing or self._waiting or self._running)
                if self._closing:
                    return
            began = time.monotonic()
            if idle:
                self._charged = began
            self._drop_cancelled()
            self._admit()
            if self._running:
                self._step()
            metrics.TRAINER_BUSY_SECONDS.inc(time.monotonic() - began)

    def _ended(self, loop: Future[None]) -> None:
        """The thread has ended: fails all remaining jobs."""
        with self._changed:
            self._dead = loop.exception()
            left = self._waiting + self._running
            self._waiting, self._running = [], []
            self._measure()
        if self._dead:
            log.error("engine_died", jobs=len(left), exc_info=self._dead)
        for job in left:
            job.fail(self._dead or Unavailable("the trainer is shutting down; send the job again"))

    def _drop_cancelled(self) -> None:
        for job in [job for job in (*self._waiting, *self._running) if job.cancelled]:
            self._fail(job, Cancelled("the training job was cancelled"))

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_jobs:
            job = next_to_join(self._waiting, self._running)
            try:
                policy = self._policy(job.spec)
                adapter, read = self._make_adapter(job.spec, policy)
                job.begin(adapter, policy, self._targets(job.spec, policy, read))
            except torch.OutOfMemoryError as error:
                if self._running:
                    return  # retried when others have left
                self._fail(job, _too_big(f"an adapter of rank {job.spec.lora.rank} with its targets", error))
                continue
            except SealError as error:
                job.charge(self._lap())
                self._fail(job, error)
                continue
            with self._changed:
                self._waiting.remove(job)
                self._running.append(job)
                self._measure()
            job.charge(self._lap())
            metrics.TRAINER_WAIT_SECONDS.observe(job.waited)

    def _make_adapter(self, spec: JobSpec, policy: FrozenAdapter | None) -> tuple[TrainableAdapter, int]:
        """The job's adapter, and the number of tokens that were read for its initial weights."""
        targets = self.model.find_targets(spec.lora.target_modules)
        read = 0
        if spec.anchoring.contrast:
            below = spec.policy.digest if spec.policy else "", policy
            weights, read = self._directions.weights(
                spec.lora, targets, spec.sequences, spec.anchors, below, step_tokens=self._step_tokens
            )
        else:
            weights = spec.start or initial_weights(spec.lora, targets, spec.seed)
        return self.model.trainable(weights, spec.optimisation, fixed_a=spec.anchoring.contrast), read

    def _policy(self, spec: JobSpec) -> FrozenAdapter | None:
        if spec.policy is None:
            return None
        digest, weights = spec.policy
        policy = self._policies.get(digest)
        if policy is None:
            policy = self._policies[digest] = self.model.frozen(weights)
        return policy

    def _targets(self, spec: JobSpec, policy: FrozenAdapter | None, read: int) -> Targets:
        """The soft targets of the job's sequences and anchors; `read` tokens were read before."""
        asks, anchors = spec.asks()
        wanted = [ask for ask in asks if ask is not None]
        policies = {"": None, spec.policy.digest: policy} if spec.policy else {"": None}
        found, tokens = self._teacher.targets([*wanted, *anchors], policies, step_tokens=self._step_tokens)
        said = iter(found)
        return Targets([next(said) if ask is not None else None for ask in asks], list(said), read + tokens)

    def _step(self) -> None:
        """One forward and backward pass for the next micro-batches of the scheduled jobs; then each takes its own
        optimiser step. The device time is divided by tokens."""
        budget = self._step_tokens
        jobs = self._scheduler.fill(self._running, budget)
        tokens = [job.tokens for job in jobs]
        self._last_tokens = sum(tokens)
        losses = self._losses(jobs)
        # If the loss is not finite, the gradient is not checked.
        stepping = [job for job, loss in zip(jobs, losses, strict=True) if isinstance(loss, float) and isfinite(loss)]
        committed = dict(zip(stepping, commit([job.update() for job in stepping]), strict=True))
        failed: list[tuple[Job, SealError]] = []
        for job, loss in zip(jobs, losses, strict=True):
            try:
                if isinstance(loss, SealError):
                    raise loss
                job.advance(loss, committed=committed.get(job, False))
            except SealError as error:
                failed.append((job, error))
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        metrics.TRAINER_STEPS.inc()
        metrics.TRAIN_TOKENS.inc(sum(tokens))
        metrics.TRAINER_STEP_OCCUPANCY.observe(sum(tokens) / budget)
        seconds = self._lap()
        for job, share in zip(jobs, tokens, strict=True):
            job.charge(seconds * share / sum(tokens))
        for job, reason in failed:
            self._fail(job, reason)
        for job in [job for job in jobs if job.done and not job.result.done()]:
            self._finish(job)

    def _losses(self, jobs: Sequence[Job]) -> list[float | SealError]:
        """The jobs' losses; gradients are written to their adapters. A step that does not fit in memory is split in
        half."""
        tokens = sum(job.tokens for job in jobs)
        try:
            return list(self.model.forward_backward([job.part(self.model) for job in jobs]))
        except torch.OutOfMemoryError as error:
            fault = _too_big(f"a micro-batch of {tokens} tokens", error)
        # Outside the handler, so that the memory of the failed step is free again.
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            return self._alone(jobs[0], fault)
        self._step_tokens = min(self._step_tokens, max(1, tokens // 2))
        log.warning("step_split", tokens=tokens, step_tokens=self._step_tokens)
        half = len(jobs) // 2
        return self._losses(jobs[:half]) + self._losses(jobs[half:])

    def _alone(self, job: Job, fault: GpuMemory) -> list[float | SealError]:
        """A job whose micro-batch does not fit alone is retried once with gradient checkpointing, which stays on if
        that helps."""
        checkpointed = self.model.checkpointed
        if checkpointed.on or not checkpointed.possible:
            return [fault]
        checkpointed.on = True
        losses = self._losses([job])
        checkpointed.on = not isinstance(losses[0], SealError)
        log.warning("gradient_checkpointing", tokens=job.tokens, on=checkpointed.on)
        return losses

    def _finish(self, job: Job) -> None:
        try:
            trained = job.finish(self.model, self._probe, self._lap)
        except SealError as error:
            self._fail(job, error)
            return
        self._leave(job, "trained")
        job.result.set_result(trained)

    def _fail(self, job: Job, error: SealError) -> None:
        self._leave(job, error.reason)
        job.fail(error)

    def _leave(self, job: Job, result: str) -> None:
        """Removes the job, before its caller gets the result."""
        with self._changed:
            for jobs in (self._waiting, self._running):
                if job in jobs:
                    jobs.remove(job)
            self._measure()
        job.leave()
        metrics.TRAINER_DEVICE_SECONDS.labels(result).inc(job.device_seconds)
        if job.began is not None:
            metrics.TRAINER_TRAIN_SECONDS.observe(time.monotonic() - job.began)

    def _lap(self) -> float:
        """Seconds since the last charge."""
        now = time.monotonic()
        seconds, self._charged = now - self._charged, now
        return seconds

    def _measure(self) -> None:
        """Sets the gauges; called with the lock held, so that the last value is the current one."""
        metrics.TRAINER_JOBS.labels("running").set(len(self._running))
        metrics.TRAINER_JOBS.labels("waiting").set(len(self._waiting))
        metrics.TRAINER_SLOT_OCCUPANCY.set(len(self._running) / self._max_jobs)


def _too_big(what: str, error: torch.OutOfMemoryError) -> GpuMemory:
    reason = str(error).splitlines()[0]
    return GpuMemory(f"{what} does not fit in this device's memory: {reason}. Ask for a smaller batch or rank")
