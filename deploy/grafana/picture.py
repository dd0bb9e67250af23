"""A board as a picture: panels side by side as Grafana lays them out, their lines, heat maps, numbers and tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image

from deploy.grafana import newest
from deploy.grafana.panel import Panel
from deploy.grafana.units import STEPS, Line, Unit, said, scale

COLUMNS = 24
"""Grafana's grid."""
_INCH_A_COLUMN, _INCH_A_UNIT, _INCH_A_TITLE, _DPI = 0.56, 0.36, 0.42, 84
_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22", "#d62728"
)  # fmt: skip
_LEGENDS, _LEGEND_LENGTH = 8, 44


def draw(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[Panel, list[Line]]]]], *, start: float, end: float
) -> bytes:
    """The board as a PNG; `rows` are headings with their panels and series."""
    placed, height = _placed(rows)
    width = COLUMNS * _INCH_A_COLUMN
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="#f4f5f5")
    canvas = FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.3 / height, title, fontsize=15, weight="bold", va="center")
    for heading, at in placed.headings:
        figure.text(0.012, 1 - (at + 0.24) / height, heading, fontsize=11.5, weight="bold", va="center", color="#444")
    for panel, lines, column, at in placed.panels:
        _card(figure, panel, lines, (column, at), (width, height), (start, end))
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class _Placed:
    """Headings and panels with their distance from the top, in inches; panels also with their column."""

    headings: list[tuple[str, float]]
    panels: list[tuple[Panel, list[Line], int, float]]


def _placed(rows: Sequence[tuple[str, Sequence[tuple[Panel, list[Line]]]]]) -> tuple[_Placed, float]:
    placed, at = _Placed([], []), 0.6
    for heading, panels in rows:
        empty = not any(line.points for _, lines in panels for line in lines)
        needs = {query.needs for panel, _ in panels for query in panel.queries if query.needs}
        why = f": nothing to show (needs {', '.join(sorted(needs))})" if empty else ""
        placed.headings.append((heading + why, at))
        at += _INCH_A_TITLE
        column, tallest = 0, 0
        for panel, lines in () if empty else panels:
            if column + panel.width > COLUMNS:
                at += tallest * _INCH_A_UNIT
                column, tallest = 0, 0
            placed.panels.append((panel, lines, column, at))
            column, tallest = column + panel.width, max(tallest, panel.height)
        at += tallest * _INCH_A_UNIT
    return placed, at + 0.1


def _card(
    figure: Figure,
    panel: Panel,
    lines: list[Line],
    place: tuple[int, float],
    size: tuple[float, float],
    span: tuple[float, float],
) -> None:
    """A white card with the panel's title above its content."""
    left, top, gap = place[0] * _INCH_A_COLUMN, place[1], 0.05
    width, height = panel.width * _INCH_A_COLUMN, panel.height * _INCH_A_UNIT
    card = figure.add_axes(_share(left + gap, top + gap, width - 2 * gap, height - 2 * gap, size))
    card.set(xticks=[], yticks=[], facecolor="white")
    for side in card.spines.values():
        side.set_color("#dcdcdc")
    card.text(
        0.1 / width, 1 - 0.17 / height, panel.title, fontsize=9.5, weight="bold", va="center", transform=card.transAxes
    )
    shown = [line for line in lines if line.points]
    if not shown:
        needs = " or ".join(dict.fromkeys(query.needs for query in panel.queries if query.needs))
        card.text(
            0.5,
            0.45,
            f"nothing to show\n(needs {needs})" if needs else "nothing to show",
            ha="center",
            color="#888",
            fontsize=9,
        )
        return
    if panel.kind == "stat":
        _stat(card, panel, shown)
    elif panel.kind == "table":
        newest.table(card, panel, shown)
    elif panel.kind == "matrix":
        newest.matrix(card, panel, shown)
    elif panel.kind == "xy":
        newest.points(figure.add_axes(_share(left + 0.68, top + 0.36, width - 0.86, height - 0.98, size)), panel, shown)
    else:
        rows = -(-min(len(shown), _LEGENDS + 1) // _legend_columns(shown))
        legend = 0.0 if panel.kind == "heatmap" else 0.06 + 0.145 * rows
        inner = _share(left + 0.68, top + 0.36, width - 0.86, height - 0.36 - 0.34 - legend, size)
        axes = figure.add_axes(inner)
        if panel.kind == "heatmap":
            _heat(axes, panel, shown)
        else:
            _lines(axes, panel, shown, inches=height - 0.36 - 0.34 - legend)
        _dress(axes, span)


def _share(left: float, top: float, width: float, height: float, size: tuple[float, float]) -> Any:
    """Inches from the top left to matplotlib's fractions from the bottom left."""
    return left / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1]


def _lines(axes: Axes, panel: Panel, lines: list[Line], *, inches: float) -> None:
    """The lines over a legend; `inches` is the height that is left for them."""
    unit = scale(panel.unit, max(abs(value) for line in lines for _, value in line.points))
    for number, line in enumerate(lines):
        times, values = _with_gaps(line.points)
        name = line.name if len(line.name) <= _LEGEND_LENGTH else f"…{line.name[1 - _LEGEND_LENGTH :]}"
        label = name if number < _LEGENDS else f"and {len(lines) - _LEGENDS} more" if number == _LEGENDS else None
        marker = "o" if len(line.points) < 4 else ""
        axes.plot(times, values / unit.size, marker=marker, ls="-", lw=1.3, ms=3, color=_colour(number), label=label)
    _limits(axes, panel, unit)
    low, high = axes.get_ylim()
    for value, colour in panel.steps:
        if low <= value / unit.size <= high:
            axes.axhline(value / unit.size, color=STEPS[colour], lw=1, ls=(0, (4, 3)), zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}{unit.name}"))
    axes.grid(color="#ececec", lw=0.7)
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.24 / inches), ncols=_legend_columns(lines), borderaxespad=0,
        fontsize=7, frameon=False, handlelength=1.2, columnspacing=1.2, labelspacing=0.25,
    )  # fmt: skip


def _limits(axes: Axes, panel: Panel, unit: Unit) -> None:
    """The panel's own limits, or those of the lines: from 0 if they are near it, and never empty."""
    low, high = axes.get_ylim()
    if panel.low == 0 and panel.high == 1:
        axes.set_ylim(-0.03 / unit.size, 1.03 / unit.size)
        return
    below, above = axes.dataLim.y0, axes.dataLim.y1
    if below >= 0 and below <= 0.5 * above:
        low = -0.03 * above
    if above - below < 1e-9:
        low, high = (0.0, max(1.0, 2 * above)) if below >= 0 else (below - 1, above + 1)
    axes.set_ylim(low, high)


def _with_gaps(points: tuple[tuple[float, float], ...]) -> tuple[Any, Any]:
    """Times and values, with NaN where points are missing, so that the line has a gap there."""
    times, values = (np.array(side) for side in zip(*points, strict=True))
    steps = np.diff(times)
    holes = np.flatnonzero(steps > 2.5 * steps.min(initial=np.inf)) + 1
    return np.insert(times, holes, times[holes]), np.insert(values, holes, np.nan)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _legend_columns(lines: list[Line]) -> int:
    return 4 if max(len(line.name) for line in lines) < 12 else 2


def _heat(axes: Axes, panel: Panel, lines: list[Line]) -> None:
    """Buckets from the bottom up, each minus the one below: Prometheus's are cumulative."""
    ordered = sorted(lines, key=lambda line: float(line.labels["le"]))
    times = sorted({at for line in ordered for at, _ in line.points})
    place = {at: number for number, at in enumerate(times)}
    grid = np.zeros((len(ordered), len(times)))
    for number, line in enumerate(ordered):
        for at, value in line.points:
            grid[number, place[at]] = value
    counts = np.diff(grid, axis=0, prepend=0)
    shown = np.where(counts > 1e-9, counts, np.nan)
    axes.pcolormesh(times, range(len(ordered)), shown, cmap="YlOrRd", shading="nearest", vmin=0)
    every = range(0, len(ordered), 2)
    axes.set_yticks(list(every), [said(float(ordered[i].labels["le"]), panel.unit) for i in every])
    axes.set_ylim(-0.5, len(ordered) - 0.5)


def _stat(card: Axes, panel: Panel, lines: list[Line]) -> None:
    for number, line in enumerate(lines):
        x = (number + 0.5) / len(lines)
        value = said(line.points[-1][1], panel.unit)
        card.text(x, 0.5, value, ha="center", va="center", fontsize=20, color=STEPS[panel.first])
        card.text(x, 0.2, line.name, ha="center", va="center", fontsize=7.5, color="#555")


def _dress(axes: Axes, span: tuple[float, float]) -> None:
    axes.set_xlim(*span)
    axes.xaxis.set_major_locator(MultipleLocator(_tick_seconds(span[1] - span[0])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: datetime.fromtimestamp(at, UTC).strftime("%H:%M")))
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5, length=2, colors="#555")
    for side in axes.spines.values():
        side.set_color("#dcdcdc")


def _tick_seconds(span: float) -> int:
    """Step of the time axis: a round number of minutes with at most six ticks."""
    return next((60 * n for n in (1, 2, 3, 5, 10, 15, 30, 60, 120, 180, 360, 720) if span / (60 * n) <= 6), 86400)
