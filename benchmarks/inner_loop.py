"""The inner loop, three ways, on the same trials: `python -m benchmarks.inner_loop [--quick] [--models …]`.

    A   SEAL's way: HF Trainer and PEFT, one trial at a time, padded to 2,048 (and 512) tokens; a few steps, scaled
    T   the same, unpadded
    B   a good plain way: PEFT and a torch loop, one trial at a time, unpadded
    C   ours, with 1, 4 and 16 trials in company

Trials are SEAL's recorded self-edits (`--data`), through `training_sequences`; without the file, texts of like length.
LoRA rank 32 on all seven projections, batch 1. Time is CPU time of the process with one thread (a busy machine shifts
wall time more than it shifts ratios), wall time with more; each figure is the best of `--repeats` interleaved ones.
`--quick` runs micro and tiny; the exit status is 0 only if their goals hold.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from sealkit.backends.models import ModelSettings, load_model
from sealkit.domains.knowledge import training_sequences
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig, Optimisation, TrainingExample
from trainer_svc.adapter import TrainableAdapter, initial_weights
from trainer_svc.encoding import Encoded, encode
from trainer_svc.engine import Engine
from trainer_svc.job import JobSpec
from trainer_svc.packed import PackedModel
from trainer_svc.plan import generator_of
from trainer_svc.step import Part

LORA = LoraConfig(rank=32, alpha=64)
SEAL_EPOCHS = 10
SHAPES = {"micro": {"hidden": 64, "layers": 2, "vocab": 512}, "tiny": {"hidden": 256, "layers": 4, "vocab": 4096}}
GOALS = {"micro": {"B": 3.0}, "tiny": {"B": 1.4}, "smol": {"B": 1.25, "A@2048": 100.0, "A@512": 13.0}}
DATA = Path("../shared/reference/selection_A.jsonl.gz")


@dataclass(frozen=True)
class Bench:
    """One model and its trials: each a list of sequences."""

    folder: Path
    dtype: str
    trials: Sequence[tuple[Encoded, ...]]
    epochs: int

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(epochs=self.epochs)

    def packed(self) -> PackedModel:
        return PackedModel(load_model(ModelSettings(model=str(self.folder), dtype=self.dtype)).model)

    def peft(self) -> Any:
        base = AutoModelForCausalLM.from_pretrained(self.folder, dtype=getattr(torch, self.dtype))
        config = peft.LoraConfig(r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=list(LORA.target_modules))
        return peft.get_peft_model(base, config)

    def scaled(self, seconds: float, trials: Sequence[tuple[Encoded, ...]]) -> float:
        """Seconds of the average trial at SEAL's number of epochs, from those that `trials` took, by their tokens."""
        average = tokens_of(self.trials) / len(self.trials)
        return seconds / tokens_of(trials) * average * SEAL_EPOCHS / self.epochs

    @property
    def steps(self) -> float:
        """Steps of the average trial at batch 1 and SEAL's number of epochs."""
        return sum(len(trial) for trial in self.trials) / len(self.trials) * SEAL_EPOCHS


def tokens_of(trials: Sequence[tuple[Encoded, ...]]) -> int:
    return sum(len(sequence.ids) for trial in trials for sequence in trial)


# --- the four ways; each returns seconds a trial ----------------------------------------------------------------------
def plain(bench: Bench, trials: Sequence[tuple[Encoded, ...]], clock: Callable[[], float]) -> tuple[float, float]:
    """B; also the mean loss of the last epoch of the first trial."""
    seconds, losses = 0.0, []
    for seed, sequences in enumerate(trials):
        model = bench.peft()
        _same_start(model, seed)
        parameters = [p for p in model.parameters() if p.requires_grad]
        began = clock()
        optimiser = torch.optim.AdamW(parameters, lr=bench.optimisation.learning_rate, weight_decay=0)
        for epoch in range(bench.epochs):
            order = torch.randperm(len(sequences), generator=generator_of(seed, "order", epoch)).tolist()
            for index in order:
                ids = torch.tensor([sequences[index].ids])
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                losses += [loss.item()] if seed == 0 else []
        seconds += clock() - began
    last = losses[-len(trials[0]) :]
    return bench.scaled(seconds, trials), sum(last) / len(last)


def ours(
    bench: Bench, model: PackedModel, trials: Sequence[tuple[Encoded, ...]], clock: Callable[[], float]
) -> tuple[float, float]:
    """C: all of `trials` in company; also the mean loss of the last epoch of the first."""
    engine = Engine(model, Encoded((1, 2, 3), (2,)), max_jobs=len(trials))
    jobs = [engine.submit(JobSpec(t, LORA, bench.optimisation, seed)) for seed, t in enumerate(trials)]
    began = clock()
    engine.start()
    first, *_ = [job.result.result() for job in jobs]
    seconds = clock() - began
    engine.close()
    last = first.losses[-len(trials[0]) :]
    return bench.scaled(seconds, trials), sum(last) / len(last)


def hf_trainer(
    bench: Bench, sequences: tuple[Encoded, ...], pad_to: int, steps: int, clock: Callable[[], float]
) -> float:
    """A (padded with the end-of-sequence token, which carries loss as in SEAL) or, with `pad_to` 0, T."""
    pad = 2
    rows = [[*s.ids, *[pad] * (pad_to - len(s.ids))] for s in sequences]
    data = [{"input_ids": row, "labels": row} for row in (rows * steps)[:steps]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=1, max_steps=steps, report_to=[], save_strategy="no", use_cpu=True,
            disable_tqdm=True, logging_strategy="no", learning_rate=1e-3, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = Trainer(bench.peft(), arguments, train_dataset=data)
        began = clock()
        trainer.train()
        seconds = clock() - began
    if not pad_to:
        return bench.scaled(seconds * bench.epochs, [sequences])
    return seconds / steps * bench.steps


def _same_start(model: Any, seed: int) -> None:
    linears = {
        path.removeprefix("base_model.model."): layer.base_layer
        for path, layer in model.named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer")
    }
    for path, (a, _) in initial_weights(LORA, linears, seed).tensors.items():
        model.get_submodule(f"base_model.model.{path}").lora_A["default"].weight.data.copy_(a)


# --- trials -----------------------------------------------------------------------------------------------------------
def recorded_texts(data: Path, count: int) -> list[list[str]]:
    """Texts of `count` trials, SEAL's own where the recorded data is at hand."""
    if not data.is_file():
        draw = random.Random(0)
        words = ["river", "lighthouse", "engineer", "bridge", "town", "machine", "glass", "century", "school"]
        return [[" ".join(draw.choices(words, k=draw.randint(12, 70))) for _ in range(8)] for _ in range(count)]
    with gzip.open(data, "rt") as lines:
        records = [json.loads(line) for line in lines]
    return [
        training_sequences(r["completions"][0]["text"], title=r["title"], context=r["context"], split_newlines=True)
        for r in records[:count]
    ]


def hashed(text: str, vocabulary: int) -> Encoded:
    """A text for a random model: pieces of words as ids, about as many as a trained tokenizer would make."""
    ids = tuple(zlib.crc32(piece.encode()) % (vocabulary - 3) + 3 for piece in re.findall(r"\w{1,5}|[^\w\s]", text))
    return Encoded((*ids, 2), tuple(range(1, len(ids) + 1)))


def make_bench(name: str, arguments: argparse.Namespace, scratch: Path) -> Bench:
    texts = recorded_texts(arguments.data, 16)
    if name in SHAPES:
        folder = make_tiny_model(scratch / name, "qwen2", context=2048, **SHAPES[name])  # type: ignore[arg-type]
        trials = [tuple(hashed(text, SHAPES[name]["vocab"]) for text in trial) for trial in texts]
    else:
        folder = arguments.smol
        tokenizer = load_model(ModelSettings(model=str(folder))).tokenizer
        trials = [tuple(encode(tokenizer, TrainingExample(text=t), append_eos=True) for t in trial) for trial in texts]
    return Bench(folder, arguments.dtype, trials, arguments.epochs)


# --- measuring --------------------------------------------------------------------------------------------------------
def measure(name: str, bench: Bench, arguments: argparse.Namespace) -> dict[str, float]:
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    model, some = bench.packed(), bench.trials[: arguments.plain_trials]
    best: dict[str, float] = {}

    def take(key: str, seconds: float) -> None:
        best[key] = min(best.get(key, math.inf), seconds)

    plain(bench, some[:1], clock), ours(bench, model, bench.trials[:1], clock)
    gap = 0.0
    for _ in range(arguments.repeats):
        seconds, theirs = plain(bench, some, clock)
        take("B", seconds)
        for company in (1, 4, 16):
            seconds, loss = ours(bench, model, bench.trials[:company], clock)
            take(f"C{company}", seconds)
            gap = max(gap, abs(loss - theirs) / theirs)
    if not arguments.quick:
        take("T", hf_trainer(bench, bench.trials[0], 0, len(bench.trials[0]), clock))
        for width in (512, 2048):
            take(f"A@{width}", hf_trainer(bench, bench.trials[0], width, 2, clock))
    tokens = tokens_of(bench.trials) / len(bench.trials)
    print(f"\n{name} {bench.dtype}: {bench.steps / SEAL_EPOCHS:.1f} sequences, {tokens:.0f} tokens a trial; "
          f"last-epoch loss of B and C differs by {gap:.1e}")  # fmt: skip
    print(f"  {'way':8} {'s/trial':>9} {'trials/min':>11} {'C16 is × as fast':>17}")
    for key, seconds in best.items():
        print(f"  {key:8} {seconds:9.3f} {60 / seconds:11.1f} {seconds / best['C16']:17.2f}")
    return best


def peak_memory(name: str, company: int, arguments: argparse.Namespace) -> int:
    """Peak resident memory, in MiB, of a process that trains `company` trials at once."""
    command = [sys.executable, "-m", "benchmarks.inner_loop", "--models", name, "--memory-of", str(company)]
    command += ["--dtype", arguments.dtype, "--smol", str(arguments.smol), "--data", str(arguments.data)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak_mib() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the parent's peak too: it outlives fork and exec
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20  # bytes on macOS


def profile(bench: Bench) -> None:
    """Where the time of sixteen in company goes, by torch operation."""
    model = bench.packed()
    targets = model.find_targets(LORA.target_modules)
    adapters = [
        TrainableAdapter.of(initial_weights(LORA, targets, seed), bench.optimisation, model.device, model.dtype)
        for seed in range(len(bench.trials))
    ]

    def step(index: int) -> None:
        model.forward_backward([Part((t[index],), adapter) for t, adapter in zip(bench.trials, adapters, strict=True)])
        for adapter in adapters:
            adapter.commit(closes=True, learning_rate=1e-3)

    step(0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step(1)
    events = sorted(seen.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("  profile of C16: " + ", ".join(f"{e.key} {e.self_cpu_time_total / total:.0%}" for e in events[:9]))


def verdict(name: str, best: dict[str, float]) -> list[str]:
    """The goals that are missed."""
    return [
        f"{name}: {best[way] / best['C16']:.2f} × {way}, goal {goal}"
        for way, goal in GOALS[name].items()
        if way in best and best[way] / best["C16"] < goal
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="micro and tiny against B alone, within a minute")
    parser.add_argument("--models", nargs="+", choices=[*SHAPES, "smol"], default=[*SHAPES])
    parser.add_argument("--smol", type=Path, default=Path("models/smollm2"), help="folder of SmolLM2-135M")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2, help="epochs that are run; times are scaled to SEAL's 10")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-trials", type=int, default=4, help="trials that B is timed on")
    parser.add_argument("--memory-of", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.memory_of:
            bench = make_bench(arguments.models[0], arguments, Path(scratch))
            ours(bench, bench.packed(), bench.trials[: arguments.memory_of], time.perf_counter)
            print(_peak_mib())
            return 0
        missed = []
        for name in [*SHAPES] if arguments.quick else arguments.models:
            bench = make_bench(name, arguments, Path(scratch))
            missed += verdict(name, measure(name, bench, arguments))
            if not arguments.quick:
                one, many = (peak_memory(name, company, arguments) for company in (1, 16))
                print(f"  peak memory: {one} MiB with 1 trial, {many} MiB with 16 ({many / one:.2f} ×)")
                missed += [f"{name}: memory {many / one:.2f} ×, goal under 2"] if many >= 2 * one else []
                profile(bench)
    print("\nverdict: " + ("all goals met" if not missed else "missed: " + "; ".join(missed)))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
