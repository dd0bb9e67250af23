"""Compares training methods by what an adapter learns of a passage and what it forgets, at the same trained tokens.

    python -m benchmarks.learning                    the missing trials of all methods, then the page
    python -m benchmarks.learning --way passage_sft  only this method; may be repeated
    python -m benchmarks.learning --page             only docs/results/learning.md and its plot
    python -m benchmarks.learning --quick            two passages and a tiny random model, to test the code

Passages are those of the held-out split of configs/demo/passages.json; no setting was chosen on their questions. The
base model writes one self-edit on each by seed and answers its questions with the passage in its prompt. An adapter on
the base model is trained on that, and asked the passage's own five questions without the passage and the retention
questions that the base model answers right; its KL is measured on a fixed text. Rows are added to
docs/results/learning.json as they are measured, so that a stopped run can be continued.
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
from typing import Any

from benchmarks.learning.material import passages
from benchmarks.learning.measure import Bench, Setting
from benchmarks.learning.page import page, plot, table
from benchmarks.learning.ways import WAYS, Way
from sealkit.testing.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
RESULTS, PAGE, PLOT = (
    ROOT / name for name in ("docs/results/learning.json", "docs/results/learning.md", "docs/pictures/learning.svg")
)
PASSAGES, SUITE = ROOT / "configs/demo/passages.json", ROOT / "sealkit/data/retention.jsonl"
MODEL = ROOT / ".seal/models/smollm2-135m-instruct"
OUT = ROOT / ".seal/benchmarks/learning"


async def run(setting: Setting, ways: Sequence[Way], count: int, seeds: int, folder: Path, results: Path) -> None:
    """Measures the missing trials of these methods, in batches."""
    async with Bench(setting, folder) as bench:
        contexts = WAYS[0].domain.contexts(passages(PASSAGES, "heldout", count))
        rows = read(results)
        known = {(row["way"], row["context"], row["seed"]) for row in rows}
        ceiling = next(way for way in WAYS if way.edit == "exam")
        if missing := [c for c in contexts if ("open_book", c.context_id, 0) not in known]:
            rows = write(results, setting, [*rows, *await bench.reference(missing, ceiling)])
        for seed in range(seeds):
            for way in ways:
                waiting = [c for c in contexts if (way.name, c.context_id, seed) not in known]
                for first in range(0, len(waiting), setting.jobs):
                    more = await bench.trials(way, waiting[first : first + setting.jobs], seed)
                    rows = write(results, setting, [*rows, *more])
                    print(
                        f"{way.name}, seed {seed}: {min(first + setting.jobs, len(waiting))} of {len(waiting)}",
                        flush=True,
                    )
                if way.routed and any((way.behind_routes, c.context_id, seed) not in known for c in contexts):
                    others = [row for row in rows if (row["way"], row["seed"]) != (way.behind_routes, seed)]
                    rows = write(results, setting, [*others, *await bench.routed(way, contexts, seed)])
                    print(f"{way.behind_routes}, seed {seed}: {len(contexts)} routes", flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    """The rows measured so far."""
    return list(json.loads(file.read_text(encoding="utf-8"))["rows"]) if file.exists() else []


def write(file: Path, setting: Setting, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, with where and when they were measured."""
    about = {
        "model": setting.model.name,
        "tokens": setting.tokens,
        "kept": setting.kept,
        "machine": f"{platform.processor() or platform.machine()}, one thread",
        "date": datetime.now(UTC).date().isoformat(),
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    file.write_text(f'{{"about": {json.dumps(about)}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    return rows


def write_page() -> None:
    """Writes docs/results/learning.md and its plot from the rows."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    about, rows = stored["about"], stored["rows"]
    note = (
        f"{about['model']}, about {about['tokens']:,} trained tokens a trial (behind the +: read once for the "
        f"teacher), {about['kept']} retention questions; {about['machine']}, {about['date']}. Means over passages "
        "with 95 % intervals; seconds are CPU seconds a trial."
    )
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows, note), encoding="utf-8")
    plot(rows, PLOT)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=[way.name for way in WAYS], action="append", help="Only these.")
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=4500, help="Trained tokens of a trial.")
    parser.add_argument("--jobs", type=int, default=6, help="Trials that are trained in one batch.")
    parser.add_argument("--page", action="store_true", help="Only write the page from existing rows.")
    parser.add_argument("--quick", action="store_true", help="Two passages, a tiny random model.")
    parser.add_argument("--out", type=Path, default=OUT, help="Folder of sampled texts and adapters.")
    options = parser.parse_args(arguments)
    if options.page:
        write_page()
        return 0
    ways = [way for way in WAYS if not options.way or way.name in options.way]
    if options.quick:
        with tempfile.TemporaryDirectory() as scratch:
            model = make_tiny_model(Path(scratch, "model"), "llama", hidden=32, layers=2, vocab=512, context=1024)
            setting, file = Setting(model, SUITE, 300, 2, 2), Path(scratch, "rows.json")
            asyncio.run(run(setting, ways, 2, 1, Path(scratch), file))
            print(table(read(file)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(MODEL, SUITE, options.tokens, 24, options.jobs)
    asyncio.run(run(setting, ways, options.passages, options.seeds, options.out, RESULTS))
    print(table(read(RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
