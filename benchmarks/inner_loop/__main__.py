"""Times the inner loop: the same trials, the same resulting weights, by

    A   SEAL's way: HF Trainer and PEFT, one trial at a time, padded to 2,048 (and 512) tokens; two steps, scaled up
    T   the same, unpadded
    B   a good plain loop: PEFT and torch, one trial at a time, unpadded
    C   ours, with 1, 4 and 16 jobs in one batch

Trials are SEAL's recorded self-edits through `training_sequences`, and the demo's passages; LoRA rank 32 on all seven
projections, batch 1. Each way runs in a separate process, pinned to as many cores as it has threads. Seconds are CPU
time with one thread, wall time with more, scaled to SEAL's ten epochs; repeats are interleaved, medians are reported.

    --quick   micro and tiny against B, within a minute; exit status 0 only if their goals hold
    --all     the tables of docs/results/inner_loop.md: about twelve minutes on two idle cores
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.inner_loop.measure import Extent, Measured, measure
from benchmarks.inner_loop.table import as_json, markdown
from benchmarks.inner_loop.trials import make_bench

EPOCHS = {"micro": 10, "tiny": 3, "smollm2": 1}
EXTENTS = {
    "micro": Extent(repeats=3, single=4, rounds=2, others=True),
    "tiny": Extent(repeats=3, single=4, rounds=2, others=True),
    "smollm2": Extent(repeats=2, single=2, rounds=1, others=True),
}
QUICK = Extent(repeats=3, single=3, rounds=2, others=False)
Job = tuple[str, str, int, str, Extent]  # model, dtype, threads, data, extent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only micro and tiny against B")
    parser.add_argument("--all", action="store_true", help="everything that the results page shows")
    parser.add_argument("--models", nargs="+", choices=[*EXTENTS], default=["micro", "tiny"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", default="recorded", choices=["recorded", "demo"])
    parser.add_argument("--limit", type=int, default=0, help="most tokens of a sequence")
    parser.add_argument("--smollm2", type=Path, default=Path(".seal/models/smollm2-135m-instruct"), help="its folder")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json, after each model")
    arguments = parser.parse_args()
    # Before a thread pool is started; the children set their own number.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]
    done: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, dtype, threads, data, extent in _jobs(arguments):
            bench = make_bench(
                name, dtype=dtype, threads=threads, epochs=1 if arguments.quick and name == "tiny" else EPOCHS[name],
                data=data, smollm2=arguments.smollm2, scratch=Path(scratch), limit=arguments.limit,
            )  # fmt: skip
            done.append(measure(bench, extent, data))
            print(markdown(done[-1:]), flush=True)
            if arguments.out:
                arguments.out.with_suffix(".md").write_text(markdown(done))
                arguments.out.with_suffix(".json").write_text(as_json(done))
    missed = [goal for each in done for goal in each.missed()]
    print("verdict: " + ("all goals met" if not missed else "missed: " + "; ".join(missed)))
    return 1 if missed else 0


def _jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    if arguments.quick:
        yield from ((name, "float32", 1, "recorded", QUICK) for name in ("micro", "tiny"))
    elif arguments.all:
        yield from ((name, "float32", 1, "recorded", EXTENTS[name]) for name in EXTENTS)
        yield "smollm2", "bfloat16", 1, "recorded", EXTENTS["smollm2"]
        yield from ((name, "float32", 2, "recorded", QUICK) for name in ("micro", "tiny"))
        yield "smollm2", "float32", 1, "demo", Extent(repeats=1, single=2, rounds=1, others=False)
    else:
        for name in arguments.models:
            yield name, arguments.dtype, arguments.threads, arguments.data, EXTENTS[name]


if __name__ == "__main__":
    raise SystemExit(main())
