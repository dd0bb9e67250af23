"""The parts of a dashboard, as data. `generate.py` converts them to Grafana's JSON; a test runs every query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table", "xy", "matrix"]
NEWEST: tuple[Kind, ...] = ("table", "xy", "matrix")
"""Kinds that show the newest values, without a time axis. `xy`: the second query against the first, a point for each
set of labels."""

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its lines (`{{label}}` is filled in by Grafana); in a table of several
    queries and in an `xy` panel, the name of its column.

    `needs`: what must have happened before the query has a result, if an ordinary run does not do it. `unit`: of its
    column, if it is not the panel's.
    """

    expr: str
    legend: str = ""
    needs: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link from the cells of a table's column. In `url`, `${__value.raw}` is the cell."""

    column: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is one of Grafana's ids; `steps` are thresholds (value, colour) above a first colour. `sides`:
    the labels of a matrix's rows and columns; `order`: the labels that it is sorted by, the first one most; all others
    are numbers."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    low: float | None = None
    high: float | None = None
    first: str = GREEN
    steps: tuple[tuple[float, str], ...] = ()
    links: tuple[Link, ...] = ()
    sides: tuple[str, str] = ("", "")
    order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `by_run` gives it a selector of runs, `reports` a field for the URL under which reports are."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...] = field(default=())
    by_run: bool = False
    reports: bool = False


def quantiles(metric: str, by: str = "", *, where: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram, in the labels of `by`."""
    labels = f"le, {by}" if by else "le"
    called = f" {{{{{by}}}}}" if by else ""
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))",
            f"p{q:.0%}"[:-1] + called,
        )
        for q in (0.5, 0.95, 0.99)
    )
