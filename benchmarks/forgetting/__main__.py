"""Texts learned one after the other: what is left of each, and of what the model could do before.

    python -m benchmarks.forgetting                     every arm and seed that is not complete, then the page
    python -m benchmarks.forgetting --arm route_best    that arm; may be repeated
    python -m benchmarks.forgetting --seeds 1           only seed 0
    python -m benchmarks.forgetting --page              only docs/results/forgetting.md, from the records
    python -m benchmarks.forgetting --quick             two texts, a tiny random model: a smoke test

The texts are passages of the train split of configs/demo/passages.json, eight others for each seed. Each is learned by
a method of benchmarks.learning with the same number of trained tokens. After every commit the questions on all texts so
far and the retention suite are asked, greedily. A record in docs/results/forgetting is written after each commit, and
adapters stay in the store of `--out`, so a stopped arm continues.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.forgetting.arms import ARMS, Arm
from benchmarks.forgetting.page import Record, matrix_line, page, plot, read
from benchmarks.forgetting.sequence import Learner
from benchmarks.learning.__main__ import MODEL, PASSAGES, ROOT, SUITE
from benchmarks.learning.material import passages
from benchmarks.learning.measure import Bench, Setting
from sealkit.testing.tiny import make_tiny_model

RECORDS, PAGE, PLOT = (
    ROOT / name for name in ("docs/results/forgetting", "docs/results/forgetting.md", "docs/pictures/forgetting.svg")
)
OUT = ROOT / ".seal/benchmarks/forgetting"
TEXTS = 8


async def run(arm: Arm, seed: int, texts: int, setting: Setting, folder: Path, records: Path) -> None:
    """The missing rows of an arm; each is written as it is measured."""
    file = records / f"{arm.name}-{seed}.json"
    known: Record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    async with Bench(setting, folder) as bench:
        contexts = arm.way.domain.contexts(passages(PASSAGES, "train", (seed + 1) * texts))[seed * texts :]
        rows = []
        async for row in Learner(arm, bench, contexts, seed).rows(known.get("rows", [])):
            rows.append(row)
            print(f"{arm.name}, seed {seed}, {len(rows) - 1} of {texts}: {matrix_line(row, contexts)}", flush=True)
            if len(rows) > len(known.get("rows", [])):
                record = {
                    "arm": arm.name,
                    "seed": seed,
                    "model": setting.model.name,
                    "tokens": setting.tokens,
                    "texts": texts,
                    "machine": f"{platform.processor() or platform.machine()}, one thread",
                    "date": datetime.now(UTC).date().isoformat(),
                    "contexts": [context.context_id for context in contexts],
                    "rows": rows,
                }
                file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=[arm.name for arm in ARMS], action="append", help="Only these.")
    parser.add_argument("--seeds", type=int, default=2, help="Seeds 0, 1, …")
    parser.add_argument("--tokens", type=int, default=4500, help="Trained tokens a text.")
    parser.add_argument("--page", action="store_true", help="Only write the page from the records.")
    parser.add_argument("--quick", action="store_true", help="Two texts, a tiny random model.")
    parser.add_argument("--out", type=Path, default=OUT, help="Folder of sampled texts and adapters.")
    options = parser.parse_args(arguments)
    arms = [arm for arm in ARMS if not options.arm or arm.name in options.arm]
    if options.quick:
        with tempfile.TemporaryDirectory() as scratch:
            model = make_tiny_model(Path(scratch, "model"), "llama", hidden=32, layers=2, vocab=512, context=1024)
            for arm in arms:
                asyncio.run(run(arm, 0, 2, Setting(model, SUITE, 300, 2, 1), Path(scratch), Path(scratch)))
        return 0
    if not options.page:
        RECORDS.mkdir(parents=True, exist_ok=True)
        options.out.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seeds):
            for arm in arms:
                setting = Setting(MODEL, SUITE, options.tokens, 24, 1)
                asyncio.run(run(arm, seed, TEXTS, setting, options.out, RECORDS))
    records = read(RECORDS)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), records), encoding="utf-8")
    plot(records, PLOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
