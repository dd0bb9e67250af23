"""The tables of docs/results/study.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.study import arc, arc_page, collapse, cost, knowledge, knowledge_page
from benchmarks.study.experiment import Experiment
from benchmarks.study.results import Results


class MakesExperiment(Protocol):
    """One run of a table; `quick`: one that only tests the code."""

    def __call__(self, seed: int, variant: str, *, quick: bool) -> Experiment: ...


@dataclass(frozen=True)
class Table:
    """A table. `variants`: its runs with each seed; `sections` of the page by name, and `plots` into a folder, from the
    recorded runs; `quick_model` makes the model of a quick run in a folder."""

    model: Path
    variants: Sequence[str]
    experiment: MakesExperiment
    sections: Callable[[Sequence[Results]], Mapping[str, str]]
    plots: Callable[[Sequence[Results], Path], None] | None
    seeds: int = 3
    quick_model: Callable[[Path], Path] | None = None


TABLES = {
    "arc": Table(arc.MODEL, list(arc.VARIANTS), arc.experiment, arc_page.sections, arc_page.plots),
    "knowledge": Table(
        knowledge.MODEL,
        list(knowledge.VARIANTS),
        knowledge.experiment,
        knowledge_page.sections,
        knowledge_page.plots,
        seeds=1,
        quick_model=knowledge.quick_model,
    ),
    "collapse": Table(arc.MODEL, list(collapse.VARIANTS), collapse.experiment, collapse.sections, collapse.plots),
    "cost": Table(
        knowledge.MODEL,
        list(cost.VARIANTS),
        cost.experiment,
        cost.sections,
        None,
        seeds=1,
        quick_model=knowledge.quick_model,
    ),
}
"""By the name on the command line and in the records' file names."""
