"""The inner loop on a GPU: `python -m benchmarks.gpu.inner_loop [--shape 7b] [--targets q_proj v_proj]`.

Qwen2.5-7B's shape in bfloat16 with random weights (nothing is downloaded), SEAL's settings: rank 32, alpha 64, batch 1,
learning rate 1e-3; 8.7 sequences of 49 tokens per trial. Times are for `--epochs` epochs, scaled to SEAL's ten.

    C   ours, with 1, 8, 16 and 50 jobs in one batch
    B   PEFT and a torch loop, one trial at a time, unpadded
    A   the same padded to 2,048 tokens with loss on the padding, as in SEAL; a few steps, scaled up

Model-flops utilisation counts 4 FLOPs per frozen weight and token (forward, and the gradient of the input) and 6 per
LoRA weight, relative to `--peak` FLOP/s (790e12: an H200 in bfloat16, dense, as measured by others).

This benchmark has not been run on a GPU yet. `--shape tiny --device cpu` shows that it runs.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peft
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from sealkit.types import LoraConfig, Optimisation
from trainer_svc.adapter import initial_weights
from trainer_svc.encoding import Encoded
from trainer_svc.engine import Engine
from trainer_svc.job import JobSpec
from trainer_svc.memory import peak_memory_bytes
from trainer_svc.optimiser import Update, commit
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part

SEAL_EPOCHS = 10
SEQUENCES, TOKENS = 8.7, 49
SHAPES: dict[str, dict[str, Any]] = {
    "7b": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "rope_theta": 1e6, "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The settings. `peak`: FLOP/s of the device."""

    shape: str
    device: torch.device
    lora: LoraConfig
    epochs: int
    peak: float

    def model(self) -> PreTrainedModel:
        torch.manual_seed(0)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # initialised in this dtype: float32 first would need twice the memory
        try:
            with self.device:
                model = Qwen2ForCausalLM(Qwen2Config(**SHAPES[self.shape], max_position_embeddings=4096))
        finally:
            torch.set_default_dtype(before)
        torch.nn.Module.eval(model.requires_grad_(False))
        return model

    def trials(self, count: int) -> list[tuple[Encoded, ...]]:
        """`count` trials with the average number and length of SEAL's sequences."""
        draw, vocabulary = random.Random(0), SHAPES[self.shape]["vocab_size"]
        trials = []
        for trial in range(count):
            lengths = [draw.randint(TOKENS // 2, TOKENS * 3 // 2) for _ in range(9 if trial % 10 < 7 else 8)]
            trials.append(tuple(_sequence([draw.randrange(int(vocabulary)) for _ in range(n)]) for n in lengths))
        return trials


def _sequence(ids: Sequence[int]) -> Encoded:
    return Encoded(tuple(ids), tuple(range(1, len(ids))))


def tokens_of(trials: Sequence[Sequence[Encoded]]) -> int:
    return sum(len(sequence.ids) for trial in trials for sequence in trial)


@contextmanager
def timed(device: torch.device, into: list[float]) -> Iterator[None]:
    """Adds the seconds until the device is done, and resets its peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    into.append(time.perf_counter() - began)


def ours(run: Run, model: PackedModel, batch: int) -> float:
    """Seconds per trial at ten epochs."""
    trials, seconds = run.trials(batch), list[float]()
    engine = Engine(model, Encoded((1, 2, 3), (2,)), max_jobs=batch, step_tokens=8192)
    optimisation = Optimisation(learning_rate=1e-3, epochs=run.epochs)
    jobs = [engine.submit(JobSpec(trial, run.lora, optimisation, seed)) for seed, trial in enumerate(trials)]
    with timed(run.device, seconds):
        engine.start()
        for job in jobs:
            job.result.result()
    engine.close()
    return seconds[0] / batch * SEAL_EPOCHS / run.epochs


def plain(run: Run, model: peft.PeftModel, rows: Sequence[Sequence[int]]) -> float:
    """Seconds of one step of batch 1 on each of `rows`, after one to warm up."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0, fused=run.device.type == "cuda")

    def step(row: Sequence[int]) -> None:
        ids = torch.tensor([row], device=run.device)
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step(rows[0])
    seconds: list[float] = []
    with timed(run.device, seconds):
        for row in rows:
            step(row)
    return seconds[0]


def flops(run: Run, model: PackedModel, tokens: float) -> float:
    """FLOPs of training on `tokens`, without attention."""
    linears = model.find_targets(model.target_names).values()
    frozen = sum(linear.weight.numel() for linear in linears) + model.model.get_output_embeddings().weight.numel()  # type: ignore[no-untyped-call]
    adapted = model.find_targets(run.lora.target_modules).values()
    lora = sum(run.lora.rank * (linear.in_features + linear.out_features) for linear in adapted)
    return float(tokens * (4 * frozen + 6 * lora))


def profile(run: Run, model: PackedModel, batch: int) -> None:
    """Prints the time of a step by operation."""
    targets = model.find_targets(run.lora.target_modules)
    trials = run.trials(batch)
    adapters = [model.trainable(initial_weights(run.lora, targets, seed), Optimisation()) for seed in range(batch)]

    def step() -> None:
        model.forward_backward([Part((t[0],), each) for t, each in zip(trials, adapters, strict=True)])
        commit([Update(each, True, 1e-3) for each in adapters])

    step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    cuda = run.device.type == "cuda"
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        step()
    print(seen.key_averages().table(sort_by=f"self_{'cuda' if cuda else 'cpu'}_time_total", row_limit=15))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES], default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--targets", nargs="+", default=["q_proj", "v_proj"], help="`all` for all seven projections")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 8, 16, 50])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--padded-steps", type=int, default=3)
    parser.add_argument("--peak", type=float, default=790e12)
    arguments = parser.parse_args()
    targets = LoraConfig().target_modules if arguments.targets == ["all"] else tuple(arguments.targets)
    lora = LoraConfig(rank=32, alpha=64, target_modules=targets)
    run = Run(arguments.shape, torch.device(arguments.device), lora, arguments.epochs, arguments.peak)
    print(
        f"{run.shape} on {run.device}, targets {', '.join(targets)}\n{'method':10} {'s/trial':>9} {'MFU':>7} {'GiB':>7}"
    )

    def show(way: str, measure: Callable[[], float]) -> None:
        seconds = measure()
        used = flops(run, packed, SEQUENCES * TOKENS * SEAL_EPOCHS) / seconds / run.peak
        print(f"{way:10} {seconds:9.3f} {used:7.1%} {peak_memory_bytes(run.device) / 2**30:7.1f}", flush=True)

    packed = PackedModel(run.model())
    ours(run, packed, 1)  # warm-up
    for batch in arguments.jobs:
        show(f"C{batch}", lambda batch=batch: ours(run, packed, batch))  # type: ignore[misc]
    profile(run, packed, max(arguments.jobs))
    config = peft.LoraConfig(r=lora.rank, lora_alpha=int(lora.alpha), target_modules=list(targets))
    model = peft.get_peft_model(run.model(), config)
    trial = run.trials(1)[0]
    steps = SEQUENCES * SEAL_EPOCHS
    show("B", lambda: plain(run, model, [list(s.ids) for s in trial]) / len(trial) * steps)
    padded = [[*trial[0].ids, *[0] * (2048 - len(trial[0].ids))]] * arguments.padded_steps
    show("A@2048", lambda: plain(run, model, padded) / len(padded) * steps)


if __name__ == "__main__":
    main()
