"""What an adaptation learned and forgot: the matrix R as a table, and the metrics computed from it."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from seal_cli.console import styled
from sealkit.reports import Continual, Estimate

_MOST_CONTEXTS = 16
"""Most columns that fit a terminal; for more contexts use `seal runs report --json`."""


def matrix_table(found: Continual) -> Table | None:
    """R[i, j] with one column per context; None if there are too many columns to show, or no row yet."""
    if not found.matrix or len(found.contexts) > _MOST_CONTEXTS:
        return None
    table = Table(
        title="Accuracy on each context, as they were learned",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("after")
    for number, _ in enumerate(found.contexts, start=1):
        table.add_column(str(number), justify="right")
    for number, row in enumerate(found.matrix):
        name = f"{number} {found.contexts[number - 1]}" if number else "start"
        table.add_row(styled(name), *("–" if score is None else f"{score:.2f}" for score in row))
    return table


def continual_facts(found: Continual) -> Iterable[tuple[str, str]]:
    """Label and value of each metric computed from R."""
    named = (
        ("just after learning", found.just_learned),
        ("at the end", found.at_end),
        ("BWT", found.bwt),
        ("forgetting of contexts", found.forgetting),
    )
    for label, estimate in named:
        if estimate is not None:
            yield label, _interval(estimate, signed=label not in ("just after learning", "at the end"))


def _interval(estimate: Estimate, *, signed: bool) -> str:
    sign = "+" if signed else ""
    mean, low, high = (format(value, f"{sign}.3f") for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}], n = {estimate.n} contexts"
