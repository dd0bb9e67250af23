"""From a request to an adapter in the store: look up, encode, validate, train (batched with others), save.

The asyncio side of the trainer. Torch runs in the engine's thread; the store and the tokenizer run in others.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from sealkit.backends.lora import WEIGHTS_FILE, LoraWeights, check_fit, dump_adapter, load_adapter
from sealkit.backends.models import LoadedModel
from sealkit.backends.tokens import token_counter
from sealkit.errors import AdapterCorrupt, AdapterNotFound, InvalidInput, SealError, ShapeMismatch
from sealkit.observability import metrics, tracing
from sealkit.routing import Route, refuse_routed
from sealkit.store import AdapterStore
from sealkit.types import (
    AdapterRef,
    LoraConfig,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    Usage,
    digest_of,
)
from trainer_svc.composition import Composer
from trainer_svc.encoding import Encoded, encode_anchors, encode_spec
from trainer_svc.engine import ENGINE_VERSION, Engine
from trainer_svc.job import Frozen, JobSpec, Trained
from trainer_svc.limits import Limits

log = structlog.get_logger(__name__)

PROGRESS_SECONDS = 0.2
"""Shortest time between two progress updates to one caller."""


@dataclass(frozen=True)
class Request:
    """What determines an adapter, and its owner. `under`: the frozen adapter below; `start`: the adapter whose weights
    it starts with; `retrain`: train it even if the store has it."""

    spec: TrainingSpec
    owner: str
    under: AdapterRef | None = None
    start: AdapterRef | None = None
    urgent: bool = False
    retrain: bool = False


@dataclass(eq=False)
class _InFlight:
    """An adapter in training, and the number of callers that wait for it."""

    task: asyncio.Task[TrainingResult] | None = None
    progress: Progress | None = None
    callers: int = 0


class Trainer:
    """Trains adapters on one base model into one store; concurrent requests for the same adapter share one training."""

    def __init__(
        self, loaded: LoadedModel, engine: Engine, store: AdapterStore, *, limits: Limits, policy_first: bool = True
    ) -> None:
        self.info = loaded.info
        self.tokenizer = loaded.tokenizer
        self._check_tokens = loaded.check_tokens
        self._engine = engine
        self._store = store
        self._composer = Composer(store, loaded.info, self._load)
        self._limits = limits
        self._policy_first = policy_first
        self._in_flight: dict[tuple[str, bool], _InFlight] = {}
        self._tokenizing = threading.Lock()  # fast tokenizers are not safe to share between threads

    def train_adapter(
        self, policy: Policy, spec: TrainingSpec, owner: str, *, retrain: bool = False
    ) -> AsyncGenerator[Progress | TrainingResult, None]:
        """Trains an adapter on `spec` over the policy's frozen adapter: yields progress, and the result last. With
        `retrain` also if the store has it; the store keeps what it has, and the result has the digest of the new
        weights.

        Raises UnknownTargetModule, ExampleTooLong, NothingToLearn, LimitExceeded, AdapterNotFound, AdapterCorrupt,
        AdapterMismatch, NonFiniteLoss, QueueFull, GpuMemory, Unavailable. Closing the iterator stops the job, unless
        another caller waits for the same adapter.
        """
        return self._train(Request(spec, owner, under=policy.adapter, retrain=retrain))

    def train_policy(
        self,
        parent: Policy,
        examples: tuple[PolicyExample, ...],
        lora: LoraConfig,
        optimisation: Optimisation,
        *,
        from_parent: bool,
        seed: int,
        owner: str,
    ) -> AsyncGenerator[Progress | TrainingResult, None]:
        """The M-step: SFT on (prompt, self-edit) with loss on the self-edit and its end. The new adapter replaces the
        parent's; with `from_parent` it starts from the parent's weights. Raises what `train_adapter` raises, and
        ShapeMismatch.
        """
        spec = TrainingSpec(
            examples=tuple(TrainingExample(text=example.completion, prompt=example.prompt) for example in examples),
            lora=lora,
            optimisation=optimisation,
            seed=seed,
        )
        start = parent.adapter if from_parent else None
        return self._train(Request(spec, owner, start=start, urgent=self._policy_first))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without special tokens."""

        def count() -> list[int]:
            with self._tokenizing:
                return list(map(token_counter(self.tokenizer), texts))

        return await asyncio.to_thread(count)

    async def delete_adapters(self, adapters: Sequence[AdapterRef]) -> int:
        """Deletes those of these adapters that the store has; returns their number. Raises Unavailable."""
        return sum([await asyncio.to_thread(self._delete, adapter.digest) for adapter in adapters])

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        """One adapter with exactly the sum of the policy's adapter and `adapter`; `adapter` itself if the policy has
        none. Raises AdapterNotFound, AdapterCorrupt, AdapterMismatch, LimitExceeded, Unavailable."""
        return await asyncio.to_thread(self._composer.join, policy.adapter, adapter)

    async def route_adapters(self, routes: Sequence[Route]) -> AdapterRef:
        """One adapter that stands for all of these: each prompt gets the one of the passage that it is about. Raises
        AdapterNotFound, AdapterCorrupt, AdapterMismatch, Unavailable."""
        return await asyncio.to_thread(self._composer.route, routes)

    @property
    def target_modules(self) -> tuple[str, ...]:
        return self._engine.model.target_names

    def digest(self, request: Request) -> str:
        """The name of the adapter: a digest of everything that determines its weights."""
        base = [self.info.digest, self.info.dtype]
        others = [ref.digest if ref else "" for ref in (request.under, request.start)]
        return digest_of("adapter", ENGINE_VERSION, base, others, request.spec)

    # --- one caller ---------------------------------------------------------------------------------------------------

    async def _train(self, request: Request) -> AsyncGenerator[Progress | TrainingResult, None]:
        began = time.monotonic()
        digest = self.digest(request)
        key = (digest, request.retrain)
        flight = self._in_flight.get(key)
        first = flight is None
        if flight is None:
            flight = self._in_flight[key] = _InFlight()
            flight.task = asyncio.create_task(self._execute(digest, request, flight))
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        flight.callers += 1
        task = flight.task
        assert task is not None
        try:
            async for progress in self._follow(flight, task):
                yield progress
            result = await asyncio.shield(task)
        finally:
            flight.callers -= 1
            if not flight.callers and not task.done():
                self._in_flight.pop(key, None)  # later callers start a new training
                task.cancel()
        wall = time.monotonic() - began
        if first:
            yield result.model_copy(update={"usage": result.usage.model_copy(update={"wall_seconds": wall})})
        else:  # the usage is charged to the first caller
            yield result.model_copy(update={"cached": True, "usage": Usage(wall_seconds=wall)})

    @staticmethod
    async def _follow(flight: _InFlight, task: asyncio.Task[TrainingResult]) -> AsyncGenerator[Progress, None]:
        """Progress of the training, at most every PROGRESS_SECONDS, until it ends."""
        last: Progress | None = None
        while not task.done():
            await asyncio.wait((task,), timeout=PROGRESS_SECONDS)
            if flight.progress is not None and flight.progress != last:
                last = flight.progress
                yield last

    # --- one adapter --------------------------------------------------------------------------------------------------

    async def _execute(self, digest: str, request: Request, flight: _InFlight) -> TrainingResult:
        if not request.retrain and (known := await asyncio.to_thread(self._recall, digest)):
            metrics.TRAINER_JOBS_ENDED.labels("cached").inc()
            metrics.CACHE_LOOKUPS.labels("training", "hit").inc()
            return known
        if not request.retrain:
            metrics.CACHE_LOOKUPS.labels("training", "miss").inc()
        try:
            with tracing.span("prepare"):
                spec = await self._prepare(request)
            trained = await self._run(spec, flight)
            with tracing.span("save"):
                result = await asyncio.to_thread(self._save, digest, request, trained)
        except SealError as error:
            metrics.TRAINER_JOBS_ENDED.labels(error.reason).inc()
            raise
        except asyncio.CancelledError:
            metrics.TRAINER_JOBS_ENDED.labels("cancelled").inc()
            raise
        metrics.TRAINER_JOBS_ENDED.labels("trained").inc()
        return result

    def _forget(self, key: tuple[str, bool], flight: _InFlight) -> None:
        if self._in_flight.get(key) is flight:
            del self._in_flight[key]

    async def _prepare(self, request: Request) -> JobSpec:
        """Checks the request and turns it into tokens and weights."""
        spec = request.spec
        asked = len(spec.examples) + len(spec.rehearsal) + len(spec.anchors)
        self._limits.check(examples=asked, rank=spec.lora.rank)
        self._engine.model.find_targets(spec.lora.target_modules)
        sequences, anchors = await asyncio.to_thread(self._encode, spec)
        if spec.anchoring.contrast and not anchors:
            raise InvalidInput("anchoring.contrast: no anchor has a token of text to compare with; give longer answers")
        under = await asyncio.to_thread(self._load, request.under) if request.under else None
        start = await asyncio.to_thread(self._load, request.start) if request.start else None
        if start is not None:
            _check_shape(start, spec.lora)
            start = LoraWeights(spec.lora, start.tensors)
        job = JobSpec(
            sequences=sequences,
            lora=spec.lora,
            optimisation=spec.optimisation,
            seed=spec.seed,
            owner=request.owner,
            policy=Frozen(request.under.digest, under) if request.under and under else None,
            start=start,
            urgent=request.urgent,
            anchors=anchors,
            distillation=spec.distillation,
            anchoring=spec.anchoring,
        )
        tokens = sum(len(s.ids) + (len(s.teacher.ids) if s.teacher else 0) for s in (*sequences, *anchors))
        self._limits.check(tokens=tokens, steps=job.steps)
        return job

    async def _run(self, spec: JobSpec, flight: _InFlight) -> Trained:
        def on_progress(progress: Progress) -> None:
            flight.progress = progress

        job = self._engine.submit(spec, on_progress)
        try:
            return await asyncio.wrap_future(job.result)
        except asyncio.CancelledError:
            self._engine.cancel(job)
            raise
        finally:
            ended, began = time.monotonic(), job.began
            tracing.past("wait for a slot", job.submitted, began or ended)
            if began is not None:
                tracing.past("train", began, ended)

    def _encode(self, spec: TrainingSpec) -> tuple[tuple[Encoded, ...], tuple[Encoded, ...]]:
        """Examples and anchors."""
        with self._tokenizing:
            length = self.info.context_length
            encoded = encode_spec(self.tokenizer, spec, length), encode_anchors(self.tokenizer, spec, length)
        for sequence in (*encoded[0], *encoded[1]):
            self._check_tokens("an example", [*sequence.ids, *(sequence.teacher.ids if sequence.teacher else ())])
        return encoded

    def _load(self, ref: AdapterRef) -> LoraWeights:
        files = self._store.fetch(ref.digest)
        refuse_routed(files)
        weights = load_adapter(files)
        check_fit(weights, self._engine.model.model)
        return weights

    def _delete(self, digest: str) -> bool:
        with suppress(AdapterNotFound):
            self._store.delete(digest)
            return True
        return False

    def _save(self, digest: str, request: Request, trained: Trained) -> TrainingResult:
        usage = Usage(
            prompt_tokens=trained.teacher_tokens,
            train_tokens=trained.train_tokens,
            device_seconds=trained.device_seconds,
        )
        manifest = {
            "engine_version": ENGINE_VERSION,
            "base_model": self.info.model_dump(mode="json"),
            "policy_digest": request.under.digest if request.under else "",
            "start_digest": request.start.digest if request.start else "",
            "spec_digest": digest_of(request.spec),
            "steps": len(trained.losses),
            "first_loss": trained.losses[0],
            "final_loss": trained.losses[-1],
            "usage": usage.model_dump(mode="json"),
            "probe": list(trained.probe),
            "probe_top": list(trained.probe_top),
        }
        files = dump_adapter(trained.weights, self.info.name)
        ref = self._store.put(digest, files, manifest)
        return _result(ref, files, manifest, usage, cached=False)

    def _recall(self, digest: str) -> TrainingResult | None:
        """The result of an earlier training, after its files were verified. A corrupt adapter is deleted and None is
        returned: the same training gives the same adapter again."""
        if not self._store.has(digest):
            return None
        try:
            manifest = self._store.manifest(digest)
            files = self._store.fetch(digest)
        except AdapterCorrupt as error:
            log.warning("adapter will be trained again", digest=digest, message=error.message)
            with suppress(AdapterNotFound):  # another trainer was faster
                self._store.delete(digest)
            return None
        return _result(self._store.put(digest, files, manifest), files, manifest, Usage(), cached=True)


def _result(
    ref: AdapterRef, files: Mapping[str, bytes], manifest: Mapping[str, Any], usage: Usage, *, cached: bool
) -> TrainingResult:
    return TrainingResult(
        adapter=ref,
        cached=cached,
        steps=manifest["steps"],
        first_loss=manifest["first_loss"],
        final_loss=manifest["final_loss"],
        weights_sha256=hashlib.sha256(files[WEIGHTS_FILE]).hexdigest(),
        usage=usage,
    )


def _check_shape(start: LoraWeights, lora: LoraConfig) -> None:
    have, want = start.config, lora
    if (have.rank, sorted(have.target_modules)) != (want.rank, sorted(want.target_modules)):
        raise ShapeMismatch(
            f"the parent has rank {have.rank} on {sorted(have.target_modules)}, but the request has rank {want.rank} "
            f"on {sorted(want.target_modules)}; use the parent's shape, or set from_parent to false"
        )
    if have.alpha / have.rank != want.alpha / want.rank:
        raise ShapeMismatch(
            f"the parent's alpha is {have.alpha}, the request's {want.alpha}; with another scaling the same weights "
            "are another model"
        )
