"""The results as a Markdown table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.inner_loop.measure import Measured
from benchmarks.inner_loop.trials import SEAL_EPOCHS

_NAMES = {
    "A@2048": "A, padded to 2,048",
    "A@512": "A, padded to 512",
    "T": "HF Trainer, unpadded",
    "B": "B, plain PEFT loop",
    "C1": "ours, one at a time",
    "C4": "ours, 4 in one batch",
    "C16": "ours, 16 in one batch",
}


def markdown(measured: Sequence[Measured]) -> str:
    """One section per model."""
    return "\n".join(_section(each) for each in measured)


def _section(measured: Measured) -> str:
    bench = measured.bench
    clock = "CPU" if bench.threads == 1 else "wall"
    lines = [
        f"### {bench.title}, {measured.data} trials",
        "",
        f"{bench.sequences:.1f} sequences and {bench.tokens:.0f} tokens a trial, {SEAL_EPOCHS} epochs; {clock} seconds."
        f" Last-epoch loss of B and ours differs by {measured.loss_gap:.1e}.",
        "",
        "| way | s per trial | trials per minute | speed-up of 16 in one batch | peak memory (model loaded) |",
        "|---|---|---|---|---|",
    ]
    for way, name in _NAMES.items():
        if way not in measured.timings:
            continue
        seconds, memory = measured.seconds(way), measured.memory[way]
        ratio = "" if way == "C16" else f"{measured.ratio(way):.2f} ×"
        lines.append(
            f"| {name} | {seconds:.3f} | {60 / seconds:.1f} | {ratio} | {memory.peak:,} MiB ({memory.loaded:,}) |"
        )
    if measured.profile:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in measured.profile.items())
        lines += ["", f"A step with 16 jobs, by torch operation: {shares}."]
    return "\n".join([*lines, ""])


def as_json(measured: Sequence[Measured]) -> str:
    """All repeats, as raw data."""
    return json.dumps(
        [
            {
                "model": each.bench.name,
                "dtype": each.bench.dtype,
                "threads": each.bench.threads,
                "data": each.data,
                "seconds": {way: each.seconds(way) for way in each.timings},
                "ratios": {way: each.ratio(way) for way in each.timings},
                "timings": {way: [t._asdict() for t in timings] for way, timings in each.timings.items()},
                "memory_mib": {way: memory._asdict() for way, memory in each.memory.items()},
                "loss_gap": each.loss_gap,
                "profile": each.profile,
                "missed": each.missed(),
            }
            for each in measured
        ],
        indent=1,
    )
