"""The charts of a page as SVG. Colours are classes of the page's style sheet, so they follow light and dark.

A chart is 400 units wide, about a phone's width. Texts in it are escaped by `Markup.format`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

from markupsafe import Markup

from sealkit.reports import Estimate
from sealkit.shown import visible

_WIDTH = 400
_TITLED = 1000
"""With more points than this, they have no titles: the page would grow too big."""
_NUMBERED = 10
"""With more columns than this, the cells of a heat map have no numbers."""
_DARKEST = 0.7
"""Opacity of the highest cell: the numbers in it stay readable."""


@dataclass(frozen=True, slots=True)
class Point:
    """A trial in `scatter`. `kind`: 0, 1 or 2, its shape."""

    x: float
    y: float
    title: str
    kind: int = 0
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear scale from values to units of the SVG."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About five round values."""
        step = self._step
        return [i * step for i in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]

    def label(self, value: float) -> str:
        digits = max(1, -floor(log10(self._step)))
        return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.0"

    @property
    def _step(self) -> float:
        rough = (self.high - self.low) / 5
        size = 10.0 ** floor(log10(rough))
        return next(step for step in (size, 2 * size, 5 * size, 10 * size) if step >= rough * 0.999)


def interval(estimate: Estimate, reference: float | None) -> Markup:
    """A mean in [0, 1] with its interval, and a tick at `reference`. The numbers are beside it, so it has no text."""
    x = _Axis(0, 1, 4, 196)
    parts = [Markup('<line class="grid" x1="4" x2="196" y1="10" y2="10"/>')]
    if reference is not None:
        parts.append(
            Markup('<line class="reference" x1="{0:.1f}" x2="{0:.1f}" y1="2" y2="18"/>').format(x.at(reference))
        )
    ends = Markup('<line class="interval" x1="{:.1f}" x2="{:.1f}" y1="10" y2="10"/>')
    parts.append(ends.format(x.at(estimate.low), x.at(estimate.high)))
    parts.append(Markup('<circle class="mean" cx="{:.1f}" cy="10" r="5"/>').format(x.at(estimate.mean)))
    return Markup('<svg class="inline" viewBox="0 0 200 20" aria-hidden="true">{}</svg>').format(_joined(parts))


def share(value: float, most: float) -> Markup:
    """A bar as long as `value` is of `most`."""
    width = 196 * value / most if most else 0.0
    bar = Markup('<rect class="bar" x="2" y="4" width="{:.1f}" height="12" rx="2"/>').format(max(width, 0.5))
    return Markup('<svg class="inline" viewBox="0 0 200 20" aria-hidden="true">{}</svg>').format(bar)


def rounds(series: Sequence[tuple[str, Sequence[tuple[int, Estimate]]]], label: str) -> Markup:
    """Accuracy by policy: a line with intervals for each of at most three series (name, [(version, accuracy)])."""
    height = 220
    last = max(version for _, points in series for version, _ in points)
    x, y = _Axis(0, max(last, 1), 60, 370), _Axis(0, 1, height - 40, 12)
    parts = [*_horizontal(y), _text(215, height - 6, "policy", "middle")]
    step = max(1, ceil(last / 10))
    parts += [_text(x.at(version), height - 22, f"θ_{version}", "middle") for version in range(0, last + 1, step)]
    for number, (_, points) in enumerate(series):
        shift = 4 * (number - (len(series) - 1) / 2)
        places = [(x.at(version) + shift, estimate) for version, estimate in points]
        path = " ".join(f"{at:.1f},{y.at(estimate.mean):.1f}" for at, estimate in places)
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(number, path))
        for at, estimate in places:
            bar = Markup('<line class="interval s{0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>')
            parts.append(bar.format(number, at, y.at(estimate.low), y.at(estimate.high)))
            parts.append(_mark(number, at, y.at(estimate.mean), f"mark s{number}", 4))
    return _chart(height, label, parts)


def scatter(points: Sequence[Point], x_label: str, y_label: str, label: str) -> Markup:
    """Every point, the chosen ones above the others, and the front: the best `y` for each `x` or less."""
    height = 300
    x = _Axis(*_range([point.x for point in points]), 52, 388)
    y = _Axis(*_range([point.y for point in points]), height - 44, 10)
    parts = [*_horizontal(y), *_vertical(x, height - 44)]
    for value, axis, mark in ((0.0, x, "x"), (0.0, y, "y")):
        if axis.low < value < axis.high:
            at = axis.at(value)
            ends = (at, at, 10.0, height - 44.0) if mark == "x" else (52.0, 388.0, at, at)
            parts.append(_line("reference", *ends))
    parts.append(_text(220, height - 8, x_label, "middle"))
    parts.append(
        Markup('<text class="label" transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            (height - 34) / 2, visible(y_label)
        )
    )
    steps = front(points)
    if steps:
        path = [f"M{x.at(steps[0].x):.1f} {y.at(steps[0].y):.1f}"]
        path += [f"H{x.at(step.x):.1f}V{y.at(step.y):.1f}" for step in steps[1:]]
        parts.append(Markup('<path class="front" d="{}"/>').format("".join(path)))
    titled = len(points) <= _TITLED
    for point in sorted(points, key=lambda point: point.chosen):
        css = f"point s{point.kind}{' chosen' if point.chosen else ''}"
        title = point.title if titled else ""
        parts.append(_mark(point.kind, x.at(point.x), y.at(point.y), css, 6 if point.chosen else 4, title))
    return _chart(height, label, parts)


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats (less `x` and more `y`), by `x`."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found


def heat_map(rows: Sequence[Sequence[float | None]], label: str) -> Markup:
    """Accuracies in [0, 1] as a grid; a darker cell is higher, an empty one was not measured. The cell just after
    learning, R[i, i], has a frame. Cells of one shade are one path, so that hundreds of contexts fit a page."""
    columns = max(len(row) for row in rows)
    cell = min(30.0, 366 / columns)
    height = round(24 + cell * len(rows) + 8)
    steps = 20 if columns <= _NUMBERED else 10
    shades: dict[int, list[str]] = defaultdict(list)
    for i, row in enumerate(rows):
        shaded = [None if value is None else round(min(1.0, max(0.0, value)) * steps) for value in row]
        j = 0
        for shade, alike in groupby(shaded):
            width = len(list(alike))
            if shade is not None:
                shades[shade].append(f"M{j} {i}h{width}v1h-{width}z")
            j += width
    parts = [_text(30 + cell * columns / 2, 14, "context", "middle")]
    place = Markup('transform="translate(30 22) scale({:.3f})"').format(cell)
    frame = f"M0 0h{columns}v{len(rows)}h-{columns}z"
    inner = [Markup('<path class="empty" d="{}"/>').format(frame)]
    for shade, cells in sorted(shades.items()):
        filled = Markup('<path class="heat" fill-opacity="{:.2f}" d="{}"/>')
        inner.append(filled.format(_DARKEST * shade / steps, "".join(cells)))
    learned = "".join(f"M{i} {i + 1}h1v1h-1z" for i in range(min(len(rows) - 1, columns)))
    if learned:
        inner.append(Markup('<path class="learned" d="{}"/>').format(learned))
    parts.append(Markup("<g {}>{}</g>").format(place, _joined(inner)))
    apart = max(1, ceil(14 / cell))
    for i in range(0, len(rows), apart):
        parts.append(_text(26, 22 + cell * (i + 0.5) + 4, str(i) if i else "start", "end"))
    if columns <= _NUMBERED:
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                shown = "–" if value is None else f"{value:.2f}"
                parts.append(_text(30 + cell * (j + 0.5), 22 + cell * (i + 0.5) + 3.5, shown, "middle", "cell"))
    return _chart(height, label, parts)


def _chart(height: int, label: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, visible(label), _joined(parts)
    )


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _line(css: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(css, x1, x2, y1, y2)


def _text(x: float, y: float, text: str, anchor: str, css: str = "label") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, y, anchor, visible(text)
    )


def _horizontal(y: _Axis) -> Iterable[Markup]:
    for value in y.ticks():
        yield _line("grid", 52, 388, y.at(value), y.at(value))
        yield _text(48, y.at(value) + 4, y.label(value), "end")


def _vertical(x: _Axis, bottom: float) -> Iterable[Markup]:
    for value in x.ticks():
        yield _line("grid", x.at(value), x.at(value), 10, bottom)
        yield _text(x.at(value), bottom + 16, x.label(value), "middle")


def _mark(kind: int, x: float, y: float, css: str, size: float, title: str = "") -> Markup:
    """A circle, a square or a diamond: kinds differ in shape, not only in colour."""
    inside = Markup("<title>{}</title>").format(visible(title)) if title else Markup("")
    if kind == 0:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}">{}</circle>').format(css, x, y, size, inside)
    if kind == 1:
        square = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{}" height="{}">{}</rect>')
        return square.format(css, x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8, inside)
    diamond = Markup('<path class="{0}" d="M{1:.1f} {2:.1f}l{3} {3}l-{3} {3}l-{3} -{3}z">{4}</path>')
    return diamond.format(css, x, y - size * 1.2, size * 1.2, inside)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: all values and 0, with a margin."""
    low, high = min(0.0, *values), max(0.0, *values)
    margin = max(0.02, 0.06 * (high - low))
    return low - margin, high + margin


def key(kind: int, *, chosen: bool = False) -> Markup:
    """The mark of a legend."""
    css = f"point s{kind}{' chosen' if chosen else ''}"
    mark = _mark(kind, 10, 10, css, 6 if chosen else 4)
    return Markup('<svg class="key" viewBox="0 0 20 20" aria-hidden="true">{}</svg>').format(mark)
