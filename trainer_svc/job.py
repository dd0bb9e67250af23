"""One training job: its specification and its progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from sealkit.backends.lora import LoraWeights
from sealkit.backends.probe import probe_of, top_of
from sealkit.errors import NonFiniteLoss, SealError
from sealkit.types import Anchoring, Distillation, LoraConfig, Optimisation, Progress
from trainer_svc.adapter import FrozenAdapter, TrainableAdapter
from trainer_svc.encoding import Encoded
from trainer_svc.loss import Soft
from trainer_svc.optimiser import Update
from trainer_svc.packed import PackedModel
from trainer_svc.plan import MicroBatch, anchors_of_step, generator_of, learning_rate, micro_batches, total_steps
from trainer_svc.step import Part, Term
from trainer_svc.teacher import Ask


class Frozen(NamedTuple):
    """A policy's weights, shared by digest."""

    digest: str
    weights: LoraWeights


@dataclass(frozen=True)
class JobSpec:
    """A training job, in tokens. `start`: the initial weights, None for new ones from `seed`; `policy`: the frozen
    adapter below; `owner`: for fair scheduling; `urgent`: is admitted before other waiting jobs; `anchors`: the base
    model's own answers, mixed in according to `anchoring`."""

    sequences: tuple[Encoded, ...]
    lora: LoraConfig
    optimisation: Optimisation
    seed: int
    owner: str = ""
    policy: Frozen | None = None
    start: LoraWeights | None = None
    urgent: bool = False
    anchors: tuple[Encoded, ...] = ()
    distillation: Distillation = field(default_factory=Distillation)
    anchoring: Anchoring = field(default_factory=Anchoring)

    def asks(self) -> tuple[list[Ask | None], list[Ask]]:
        """The teacher's inputs: one for each sequence (None if it is not distilled) and one for each anchor."""
        policy = self.policy.digest if self.policy else ""
        held = self.anchoring.per_step and self.anchoring.weight
        asks = [self._ask(sequence, policy) for sequence in self.sequences]
        return asks, [Ask(anchor, "", self.distillation.top_k) for anchor in self.anchors if held]

    def _ask(self, sequence: Encoded, policy: str) -> Ask | None:
        if sequence.teacher is not None:
            return Ask(sequence.teacher, policy, self.distillation.top_k) if self.distillation.kl_weight else None
        return Ask(sequence, policy, 0) if self.optimisation.kl_beta else None

    @property
    def steps(self) -> int:
        return total_steps(len(self.sequences), self.optimisation)


class Targets(NamedTuple):
    """Soft targets of a job's sequences (None: it has none) and of its anchors, and the number of tokens that were read
    for them."""

    sequences: Sequence[Soft | None] = ()
    anchors: Sequence[Soft] = ()
    tokens: int = 0


@dataclass(frozen=True)
class Trained:
    """The result of a job: weights on the CPU, the losses (nats a label token) of its optimiser steps, its usage.
    `probe` and `probe_top`: logits of the finished model for the engine's fixed prompt (`sealkit.backends.probe`)."""

    weights: LoraWeights
    losses: tuple[float, ...]
    train_tokens: int
    teacher_tokens: int
    device_seconds: float
    probe: tuple[float, ...]
    probe_top: tuple[tuple[int, float], ...]


class Job:
    """A job in the engine. The engine's thread calls everything except `cancel`."""

    def __init__(self, spec: JobSpec, on_progress: Callable[[Progress], None] | None = None) -> None:
        self.spec = spec
        self.result: Future[Trained] = Future()
        # Only the engine sets the result: a caller must not cancel it in the middle of a step.
        self.result.set_running_or_notify_cancel()
        self.cancelled = False
        self.submitted = time.monotonic()
        self.began: float | None = None
        self.device_seconds = 0.0
        self._on_progress = on_progress or (lambda _: None)
        self._adapter: TrainableAdapter | None = None
        self._policy: FrozenAdapter | None = None
        self._targets = Targets()
        self._plan: Iterator[MicroBatch] = iter(())
        self._next: MicroBatch | None = None
        self._anchors: tuple[int, ...] = ()
        self._step_losses: list[float] = []
        self._losses: list[float] = []
        self._train_tokens = 0
        self.tokens = 0
        """Tokens of the next micro-batch."""

    def cancel(self) -> None:
        """Asks the engine to drop the job at the next step. Callable from any thread."""
        self.cancelled = True

    def begin(self, adapter: TrainableAdapter, policy: FrozenAdapter | None, targets: Targets) -> None:
        """Starts the job in a slot."""
        self.began = time.monotonic()
        self._adapter, self._policy, self._targets = adapter, policy, targets
        self._plan = micro_batches(len(self.spec.sequences), self.spec.optimisation, self.spec.seed)
        self._turn()

    @property
    def waited(self) -> float:
        """Seconds from submission to the start."""
        assert self.began is not None
        return self.began - self.submitted

    @property
    def done(self) -> bool:
        return self._next is None

    def part(self, model: PackedModel) -> Part:
        """The next micro-batch as part of a step; a second call gives the same, with the same dropout."""
        assert self._next is not None
        batch, spec = self._next, self.spec
        generator = None
        if spec.lora.dropout:
            generator = generator_of(spec.seed, "dropout", batch.index, device=model.device)
        sequences = tuple(spec.sequences[i] for i in batch.examples)
        labels = sum(len(sequence.labels) for sequence in sequences)
        terms = tuple(self._term(i, batch.share / labels) for i in batch.examples)
        anchors = tuple(spec.anchors[i] for i in self._anchors)
        if anchors:
            held = spec.anchoring.weight / sum(len(anchor.labels) for anchor in anchors)
            terms += tuple(Term(0.0, held, self._targets.anchors[i], reported=False) for i in self._anchors)
        return Part((*sequences, *anchors), self._adapter, self._policy, terms, batch.share, generator)

    def _term(self, index: int, weight: float) -> Term:
        """The loss terms of a sequence, for this weight of each label token."""
        spec, soft = self.spec, self._targets.sequences[index]
        if spec.sequences[index].teacher is None:
            return Term(weight, weight * spec.optimisation.kl_beta, soft)
        return Term(weight * spec.distillation.ce_weight, weight * spec.distillation.kl_weight, soft)

    def update(self) -> Update:
        """The optimiser update for the gradient of a step."""
        assert self._next is not None
        assert self._adapter is not None
        rate = learning_rate(self.spec.optimisation, len(self._losses), self.spec.steps)
        return Update(self._adapter, self._next.closes, rate)

    def advance(self, loss: float, *, committed: bool) -> None:
        """Records the outcome of a step. Raises NonFiniteLoss, also if the update was not `committed`."""
        assert self._next is not None
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if not committed:
            raise self._diverged("the gradient is not finite")
        self._train_tokens += self.tokens
        self._step_losses.append(loss)
        if self._next.closes:
            self._losses.append(sum(self._step_losses) / len(self._step_losses))
            self._step_losses = []
            self._on_progress(Progress(step=len(self._losses), total_steps=self.spec.steps, loss=self._losses[-1]))
        self._turn()

    def _turn(self) -> None:
        self._next, self._anchors = next(self._plan, None), ()
        if self._next is None:
            self.tokens = 0
            return
        if self._next.closes and self._targets.anchors:
            count, step = len(self.spec.anchors), len(self._losses)
            self._anchors = anchors_of_step(count, self.spec.anchoring.per_step, self.spec.seed, step)
        some = [*(self.spec.sequences[i] for i in self._next.examples), *(self.spec.anchors[i] for i in self._anchors)]
        self.tokens = sum(len(sequence.ids) for sequence in some)

    def charge(self, seconds: float) -> None:
        """Adds device time."""
        self.device_seconds += seconds

    def finish(self, model: PackedModel, prompt: Encoded, lap: Callable[[], float]) -> Trained:
        """The result; its last device seconds come from `lap`, called at the end. Raises NonFiniteLoss if the weights
        are not finite."""
        assert self._adapter is not None
        if not self._adapter.finite:
            raise self._diverged("the weights are not finite")
        probe = model.logits([Part((prompt,), self._adapter, self._policy)])[0]
        weights = self._adapter.weights()
        self.charge(lap())
        said = probe_of(probe), top_of(probe)
        tokens = self._train_tokens, self._targets.tokens
        return Trained(weights, tuple(self._losses), *tokens, self.device_seconds, *said)

    def fail(self, error: BaseException) -> None:
        """Ends the job with `error`."""
        self.leave()
        if not self.result.done():
            self.result.set_exception(error)

    def leave(self) -> None:
        """Releases the slot's memory."""
        self._adapter = self._policy = None
        self._targets = Targets(tokens=self._targets.tokens)

    def _diverged(self, what: str) -> SealError:
        step = len(self._losses) + 1
        return NonFiniteLoss(
            f"training diverged: {what} at step {step} of {self.spec.steps}; lower the learning rate",
            metadata={"step": str(step), "learning_rate": str(self.spec.optimisation.learning_rate)},
        )
