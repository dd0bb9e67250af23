"""The parts of a dashboard, as data. `generate.py` converts them to Grafana's JSON; a test runs every query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its lines (`{{label}}` is filled in by Grafana).

    `needs`: what must have happened before the query has a result, if an ordinary run does not do it.
    """

    expr: str
    legend: str = ""
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is one of Grafana's ids; `steps` are thresholds (value, colour) above a first colour."""

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


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `by_run` gives it a selector of runs."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...] = field(default=())
    by_run: bool = False


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
