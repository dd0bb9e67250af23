"""Pages with measured tables and plots: what every benchmark that writes one shares."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sealkit.reports import Estimate
from sealkit.stats import mean_estimate, paired_difference

K = TypeVar("K", bound=Hashable)


def with_section(text: str, name: str, body: str) -> str:
    """The page with `body` between `<!-- NAME: … -->` and `<!-- end of NAME -->`. Raises ValueError unless it has that
    section once."""
    section = re.compile(rf"(<!-- {re.escape(name)}: [^\n]*-->\n).*?(<!-- end of {re.escape(name)} -->\n)", re.DOTALL)
    if len(section.findall(text)) != 1:
        raise ValueError(f"the page has no section {name}, or several")
    return section.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text)


def figures(values: Mapping[K, float], *, low: float = 0.0, high: float = 1.0) -> str:
    """A mean over contexts with its 95 % interval, within [low, high]."""
    found = mean_estimate(list(values.values()), low=low, high=high)
    return "–" if found is None else f"{found.mean:.3f} [{found.low:.2f}, {found.high:.2f}]"


def gain(first: Mapping[K, float], last: Mapping[K, float]) -> Estimate | None:
    """`last` minus `first` on the contexts that both have; None without any."""
    shared = [context for context in first if context in last]
    return paired_difference([first[c] for c in shared], [last[c] for c in shared])


def difference(first: Mapping[K, float], last: Mapping[K, float]) -> str:
    """`gain`, for a table."""
    found = gain(first, last)
    return "–" if found is None else f"{found.mean:+.3f} [{found.low:+.2f}, {found.high:+.2f}]"


def bars(estimate: Estimate) -> list[list[float]]:
    """The interval as matplotlib's error bar."""
    return [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]


@contextmanager
def plotted(file: Path, *, size: tuple[float, float] = (8, 5)) -> Iterator[Any]:
    """Axes to draw on; saved to `file` as SVG, which is the same for the same drawing."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = file.stem
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=size)
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    axes.set_prop_cycle(color=[*colours[::2], *colours[1::2]])  # the ten usual ones, then lighter ones
    yield axes
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
