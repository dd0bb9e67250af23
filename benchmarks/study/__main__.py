"""Does ReST^EM pay? Each table is a set of runs of the embedded stack.

    python -m benchmarks.study arc                    the missing runs of all seeds, then the page
    python -m benchmarks.study arc --seeds 1          only seed 0
    python -m benchmarks.study arc --variant keep_best
    python -m benchmarks.study arc --quick            a few trials in a temporary folder, to test the code
    python -m benchmarks.study --page                 only docs/results/study.md and its plots, from the records

Tables: `arc` (ARC in small), `knowledge` (knowledge in small), `collapse` (model collapse and the filter), `cost`.
A stopped table continues where it was: its stack's data are in .seal/benchmarks/study, one record a run is in
docs/results/study, and a complete one is not measured again. Long runs go beside other work with `nice -n 10`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.experiment import Experiment, is_finished, perform, stack
from benchmarks.study.page import page
from benchmarks.study.results import read
from benchmarks.study.tables import TABLES, Table

ROOT = Path(__file__).parents[2]
RECORDS, PAGE, PICTURES = (ROOT / name for name in ("docs/results/study", "docs/results/study.md", "docs/pictures"))
DATA = ROOT / ".seal/benchmarks/study"


def say(line: str) -> None:
    """A line of progress."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=list(TABLES), help="The table to measure.")
    parser.add_argument("--seeds", type=int, help="Seeds 0, 1, …; default: the table's own number.")
    parser.add_argument("--variant", action="append", help="Only these.")
    parser.add_argument("--page", action="store_true", help="Only write the page from the records.")
    parser.add_argument("--quick", action="store_true", help="A few trials; prints the sections, and stores nothing.")
    parser.add_argument("--records", type=Path, default=RECORDS, help="Folder of the records.")
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of the stacks' data.")
    options = parser.parse_args(arguments)
    if not options.table and not options.page:
        parser.error("name a table, or --page")
    if options.table:
        table = TABLES[options.table]
        variants = options.variant or table.variants
        if unknown := sorted(set(variants) - set(table.variants)):
            parser.error(f"no variant {', '.join(unknown)}; {options.table} has {', '.join(table.variants)}")
        if options.quick:
            rehearse(options.table, table, variants)
            return 0
        for seed in range(options.seeds or table.seeds):
            for variant in variants:
                measure(
                    table.experiment(seed, variant, quick=False),
                    table.model,
                    data=options.data / options.table,
                    records=options.records,
                )
    write_page(options.records)
    return 0


def measure(experiment: Experiment, model: Path, *, data: Path, records: Path) -> None:
    """The experiment's run and record, unless it has one; each with a stack that was just started, so that no run finds
    answers of another in a cache. Adapters that another one trained are found in the store."""
    if is_finished(records / f"{experiment.name}.json"):
        say(f"{experiment.name}: has its record")
        return
    with stack(model, data, say) as client:
        perform(client, experiment, records, say)


def rehearse(name: str, table: Table, variants: Sequence[str]) -> None:
    """Tests the table's code: few trials, which say nothing, and their sections."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = table.quick_model(folder / "model") if table.quick_model else table.model
        for variant in variants:
            measure(table.experiment(0, variant, quick=True), model, data=folder / "data", records=folder)
        runs = read(folder, name)
        for section, body in table.sections(runs).items():
            say(f"\n{section}\n\n{body}")
        if table.plots:
            table.plots(runs, folder)


def write_page(records: Path) -> None:
    """Writes docs/results/study.md and its plots from the records."""
    for name, table in TABLES.items():
        if runs := read(records, name):
            PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table.sections(runs)), encoding="utf-8")
            if table.plots:
                table.plots(runs, PICTURES)


if __name__ == "__main__":
    sys.exit(main())
