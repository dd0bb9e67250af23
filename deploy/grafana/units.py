"""What a picture is made of: series, Grafana's units and its colours of thresholds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its legend, its labels, and its points (Unix seconds, value)."""

    name: str
    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


STEPS = {"green": "#37872d", "yellow": "#e0a800", "red": "#c4162a"}


@dataclass(frozen=True, slots=True)
class Unit:
    """The divisor of a value, and its suffix."""

    size: float
    name: str


_SCALES = {
    "percentunit": (Unit(0.01, " %"),),
    "s": (Unit(3600, " h"), Unit(60, " min"), Unit(1, " s")),
    "bytes": (Unit(2**30, " GiB"), Unit(2**20, " MiB"), Unit(2**10, " KiB"), Unit(1, " B")),
    "reqps": (Unit(1, " /s"),),
    "watt": (Unit(1, " W"),),
    "celsius": (Unit(1, " °C"),),
    "none": (Unit(1, ""),),
    "short": (Unit(1e6, " M"), Unit(1e3, " k"), Unit(1, "")),
}
"""Grafana's units that the boards use, the largest first."""


def scale(unit: str, most: float) -> Unit:
    """The largest unit in which `most` is at least two."""
    sizes = _SCALES[unit]
    return next((size for size in sizes if most >= 2 * size.size), sizes[-1])


def said(value: float, unit: str) -> str:
    """The value in its unit, with three digits."""
    found = scale(unit, abs(value))
    return f"{value / found.size:.3g}{found.name}"
