"""Panels without a time axis as pictures: tables, matrices, and one value against another."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deploy.grafana.panel import Panel
from deploy.grafana.units import STEPS, Line, said, scale

_ROWS, _COLUMNS = 12, 24
_PLACE = (0.02, 0.03, 0.96, 0.82)
_FAINT = "66"
"""Opacity of a cell's colour."""


def table(card: Axes, panel: Panel, lines: list[Line]) -> None:
    """Labels and values, as many rows as fit; with several queries a column for each, as Grafana merges them."""
    names = _labels(lines)
    columns = [query.legend for query in panel.queries] if len(panel.queries) > 1 else ["value"]
    units = {query.legend: query.unit or panel.unit for query in panel.queries}
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        column = line.name if len(columns) > 1 else "value"
        row = found.setdefault(tuple(line.labels[name] for name in names), {})
        row[column] = said(line.points[-1][1], units.get(column, panel.unit))
    ordered = sorted(found, key=lambda labels: [_by_number(label) for label in labels])
    cells = [[*labels, *(found[labels].get(column, "") for column in columns)] for labels in ordered]
    _draw(card, [*names, *columns], _cut(cells), [])


def matrix(card: Axes, panel: Panel, lines: list[Line]) -> None:
    """Rows by columns, coloured by the panel's thresholds; as many as fit."""
    row, column = panel.sides
    ordered = sorted(lines, key=lambda line: [_by_number(line.labels[label]) for label in panel.order])
    values = {(line.labels[row], line.labels[column]): line.points[-1][1] for line in ordered}
    rows = list(dict.fromkeys(line.labels[row] for line in ordered))
    places = sorted(dict.fromkeys(line.labels[column] for line in ordered), key=_by_number)[:_COLUMNS]
    cells, colours = [], []
    for name in rows:
        known = [values.get((name, place)) for place in places]
        cells.append([name, *("" if value is None else said(value, panel.unit) for value in known)])
        colours.append(["white", *("white" if value is None else _colour(panel, value) for value in known)])
    _draw(card, [f"{row} \\ {column}", *places], _cut(cells), colours)


def points(axes: Axes, panel: Panel, lines: list[Line]) -> None:
    """The second query against the first, a point for each set of labels."""
    across, up = panel.queries
    sides: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for line in lines:
        sides.setdefault(tuple(sorted(line.labels.items())), {})[line.name] = line.points[-1][1]
    pairs = [(both[across.legend], both[up.legend]) for both in sides.values() if len(both) == 2]
    unit = scale(panel.unit, max((abs(value) for pair in pairs for value in pair), default=0.0))
    axes.scatter([x / unit.size for x, _ in pairs], [y / unit.size for _, y in pairs], s=22, color="#1f77b4", alpha=0.7)
    axes.set_xlabel(across.legend, fontsize=7.5, color="#555")
    axes.set_ylabel(up.legend, fontsize=7.5, color="#555")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}{unit.name}"))
    axes.grid(color="#ececec", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5, length=2, colors="#555")
    for side in axes.spines.values():
        side.set_color("#dcdcdc")


def _labels(lines: list[Line]) -> list[str]:
    return [name for name in lines[0].labels if name != "__name__"]


def _cut(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= _ROWS:
        return rows
    return [*rows[: _ROWS - 1], [f"and {len(rows) - _ROWS + 1} more", *[""] * (len(rows[0]) - 1)]]


def _draw(card: Axes, names: list[str], rows: list[list[str]], colours: Sequence[list[str]]) -> None:
    made = card.table(cellText=rows, colLabels=names, cellLoc="left", bbox=_PLACE)  # type: ignore[arg-type]
    made.auto_set_font_size(False)
    made.set_fontsize(7.5)
    for (row, column), cell in made.get_celld().items():
        plain = "#f4f5f5" if row == 0 else "white"
        cell.set(edgecolor="#e4e4e4", facecolor=colours[row - 1][column] if colours and row else plain)


def _colour(panel: Panel, value: float) -> str:
    passed = [colour for least, colour in panel.steps if value >= least]
    return STEPS[passed[-1] if passed else panel.first] + _FAINT


def _by_number(text: str) -> tuple[float, str]:
    return (float(text), "") if text.replace(".", "", 1).isdigit() else (0.0, text)
