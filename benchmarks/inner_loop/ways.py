"""The ways to train a trial. Each has its own model; a call trains some trials and returns the time."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import peft
import torch
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from benchmarks.inner_loop.trials import LORA, SEAL_EPOCHS, Bench, Trial, tokens_of
from sealkit.backends.models import ModelSettings, load_model
from sealkit.types import Optimisation
from trainer_svc.adapter import initial_weights
from trainer_svc.encoding import Encoded
from trainer_svc.engine import Engine
from trainer_svc.job import JobSpec
from trainer_svc.memory import keep_freed_memory
from trainer_svc.optimiser import Update, commit
from trainer_svc.packed import PackedModel
from trainer_svc.plan import generator_of
from trainer_svc.step import Part

PADDED_STEPS = 2
"""Steps that are run of a padding way; all of its steps cost the same."""


class Timing(NamedTuple):
    """Seconds of an average trial at SEAL's ten epochs, CPU and wall; `loss`: mean of the first trial's last epoch."""

    cpu: float
    wall: float
    loss: float = 0.0


class _Clock:
    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall

    def timing(self, scale: float, loss: float = 0.0) -> Timing:
        return Timing(self.cpu * scale, self.wall * scale, loss)


class Ours:
    """C: the engine with `jobs` slots. A free slot is filled at once while trials wait, as in a run."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        keep_freed_memory()
        self._bench, self._jobs = bench, jobs
        settings = ModelSettings(model=str(bench.folder), dtype=bench.dtype)
        self._model = PackedModel(load_model(settings).model)

    def train(self, trials: Sequence[Trial]) -> Timing:
        engine = Engine(self._model, Encoded((1, 2, 3), (2,)), max_jobs=self._jobs, step_tokens=1024)
        optimisation = Optimisation(epochs=self._bench.epochs)
        jobs = deque(engine.submit(JobSpec(trial, LORA, optimisation, seed)) for seed, trial in enumerate(trials))
        losses: list[tuple[float, ...]] = []
        clock = _Clock()
        with clock.running():
            engine.start()
            while jobs:  # a job and its weights are dropped as soon as it is done, as in the trainer
                losses.append(jobs.popleft().result.result().losses)
        engine.close()
        return clock.timing(_scale(self._bench, trials), _last_epoch(losses[0], trials[0]))

    def profile(self) -> dict[str, float]:
        """Share of the CPU time of a step with all slots in use, by torch operation, the largest first."""
        targets = self._model.find_targets(LORA.target_modules)
        trials = self._bench.trials[: self._jobs]
        adapters = [
            self._model.trainable(initial_weights(LORA, targets, seed), Optimisation()) for seed in range(len(trials))
        ]

        def step(index: int) -> None:
            parts = [Part((trial[index % len(trial)],), each) for trial, each in zip(trials, adapters, strict=True)]
            self._model.forward_backward(parts)
            commit([Update(adapter, True, 1e-3) for adapter in adapters])

        step(0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            for index in range(1, 3):
                step(index)
        events = sorted(seen.key_averages(), key=lambda e: -e.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        return {event.key: event.self_cpu_time_total / total for event in events[:12]}


class Plain:
    """B: PEFT and a torch loop, one trial at a time, unpadded."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._model = _peft_model(bench)

    def train(self, trials: Sequence[Trial]) -> Timing:
        clock, model, losses = _Clock(), self._model, []
        for seed, sequences in enumerate(trials):
            _same_start(model, seed)
            parameters = [p for p in model.parameters() if p.requires_grad]
            with clock.running():
                optimiser = torch.optim.AdamW(parameters, lr=Optimisation().learning_rate, weight_decay=0)
                for epoch in range(self._bench.epochs):
                    order = torch.randperm(len(sequences), generator=generator_of(seed, "order", epoch)).tolist()
                    for index in order:
                        ids = torch.tensor([sequences[index].ids])
                        loss = model(input_ids=ids, labels=ids).loss
                        loss.backward()
                        optimiser.step()
                        optimiser.zero_grad()
                        losses += [loss.item()] if seed == 0 else []
        return clock.timing(_scale(self._bench, trials), _last_epoch(losses, trials[0]))


class HfTrainer:
    """A: HF Trainer and PEFT, one trial at a time, padded to `width` with the end-of-sequence token, which carries loss
    as in SEAL. Width 0: no padding."""

    def __init__(self, bench: Bench, width: int) -> None:
        self._bench, self._width = bench, width
        self._model = _peft_model(bench)

    def train(self, trials: Sequence[Trial]) -> Timing:
        sequences = trials[0]
        steps = PADDED_STEPS if self._width else len(sequences)
        rows = [[*s.ids, *[2] * (self._width - len(s.ids))] for s in sequences]
        data = [{"input_ids": row, "labels": row} for row in (rows * steps)[:steps]]
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=1, max_steps=steps, report_to=[], save_strategy="no", use_cpu=True,
                disable_tqdm=True, logging_strategy="no", learning_rate=1e-3, lr_scheduler_type="constant",
            )  # fmt: skip
            trainer = Trainer(self._model, arguments, train_dataset=data)
            trainer.remove_callback(PrinterCallback)
            with clock.running():
                trainer.train()
        if self._width:
            return clock.timing(self._bench.sequences * SEAL_EPOCHS / steps)
        return clock.timing(_scale(self._bench, [sequences]) * self._bench.epochs)


def make_way(name: str, bench: Bench) -> Ours | Plain | HfTrainer:
    """B, T, A@<width> or C<jobs>."""
    if name == "B":
        return Plain(bench)
    if name == "T":
        return HfTrainer(bench, 0)
    kind, _, width = name.partition("@")
    return HfTrainer(bench, int(width)) if kind == "A" else Ours(bench, int(name[1:]))


def _scale(bench: Bench, trials: Sequence[Trial]) -> float:
    """Scales the seconds of `trials` to the average trial at ten epochs, by tokens."""
    return bench.tokens / tokens_of(trials) * SEAL_EPOCHS / bench.epochs


def _last_epoch(losses: Sequence[float], trial: Trial) -> float:
    last = losses[-len(trial) :]
    return sum(last) / len(last)


def _peft_model(bench: Bench) -> Any:
    base = AutoModelForCausalLM.from_pretrained(bench.folder, dtype=getattr(torch, bench.dtype))
    config = peft.LoraConfig(r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=list(LORA.target_modules))
    return peft.get_peft_model(base, config)


def _same_start(model: Any, seed: int) -> None:
    """Our engine's initial weights."""
    layers = {
        path.removeprefix("base_model.model."): layer
        for path, layer in model.named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer")
    }
    weights = initial_weights(LORA, {path: layer.base_layer for path, layer in layers.items()}, seed)
    for path, (a, b) in weights.tensors.items():
        layers[path].lora_A["default"].weight.data.copy_(a)
        layers[path].lora_B["default"].weight.data.copy_(b)
