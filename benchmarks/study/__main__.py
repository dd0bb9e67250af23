"""Does ReST^EM pay? Each table is a set of runs of the embedded stack.

    python -m benchmarks.study arc                    the missing runs of all seeds, then the page
    python -m benchmarks.study arc --seeds 1          only seed 0
    python -m benchmarks.study arc --variant keep_best
    python -m benchmarks.study --page                 only docs/results/study.md and its plots, from the records

A stopped table continues where it was: its stack's data are in .seal/benchmarks/study, one record a run is in
docs/results/study, and a complete one is not measured again. Long runs go beside other work with `nice -n 10`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study import arc
from benchmarks.study.experiment import perform, stack
from benchmarks.study.page import page, plot
from benchmarks.study.results import read

ROOT = Path(__file__).parents[2]
RECORDS, PAGE, PLOT = (
    ROOT / name for name in ("docs/results/study", "docs/results/study.md", "docs/pictures/study-arc.svg")
)
DATA = ROOT / ".seal/benchmarks/study"


def say(line: str) -> None:
    """A line of progress."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=["arc"], help="The table to measure.")
    parser.add_argument("--seeds", type=int, default=3, help="Seeds 0, 1, …")
    parser.add_argument("--variant", choices=list(arc.VARIANTS), action="append", help="Only these.")
    parser.add_argument("--page", action="store_true", help="Only write the page from the records.")
    parser.add_argument("--records", type=Path, default=RECORDS, help="Folder of the records.")
    options = parser.parse_args(arguments)
    if not options.table and not options.page:
        parser.error("name a table, or --page")
    if options.table:
        with stack(arc.MODEL, DATA / options.table, say) as client:
            for seed in range(options.seeds):
                for variant in options.variant or arc.VARIANTS:
                    perform(client, arc.experiment(seed, variant), options.records, say)
    write_page(options.records)
    return 0


def write_page(records: Path) -> None:
    """Writes docs/results/study.md and its plots from the records."""
    runs = read(records, "arc")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")
    plot(runs, PLOT)


if __name__ == "__main__":
    sys.exit(main())
