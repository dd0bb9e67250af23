"""The table and the plot from the measured rows, and the page with both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.ways import WAYS
from sealkit.resources import Estimate
from sealkit.stats import mean_estimate, paired_difference

BEGIN = "<!-- table: written by python -m benchmarks.learning --page -->\n"
END = "<!-- end of table -->\n"
AGAINST = "passage_sft"
_REFERENCES = {"base": "the base model, untrained", "open_book": "the teacher: the passage in its prompt"}

Row = Mapping[str, Any]


def by_context(rows: Sequence[Row], way: str, value: str) -> dict[str, float]:
    """A value of a method by context, the mean over its seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["way"] == way and row.get(value) is not None:
            found[row["context"]].append(row[value])
    return {context: fmean(values) for context, values in found.items()}


def table(rows: Sequence[Row]) -> str:
    """All methods, in Markdown; 95 % intervals over passages."""
    head = (
        "| way | n | accuracy | against passage SFT | retention lost | KL to the base | tokens | train s | ask s |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    first = by_context(rows, AGAINST, "accuracy")
    for name, label in _REFERENCES.items():
        scores = by_context(rows, name, "accuracy")
        if scores:
            lines.append(
                f"| {label} | {len(scores)} | {_figures(scores)} | {_against(first, scores)} | – | – | – | – | – |"
            )
    for way in WAYS:
        scores = by_context(rows, way.name, "accuracy")
        if not scores:
            continue
        own = [row for row in rows if row["way"] == way.name]
        seeds = len({row["seed"] for row in own})
        cells = [
            way.label,
            f"{len(scores)} × {seeds}" if seeds > 1 else str(len(scores)),
            _figures(scores),
            "" if way.name == AGAINST else _against(first, scores),
            _figures(by_context(rows, way.name, "lost"), low=-1.0),
            _figures(by_context(rows, way.name, "kl"), low=0.0, high=float("inf")),
            f"{fmean(row['tokens'] for row in own):,.0f} + {fmean(row['teacher_tokens'] for row in own):,.0f}",
            f"{fmean(row['train_cpu_seconds'] for row in own):.0f}",
            f"{fmean(row['ask_cpu_seconds'] for row in own):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Accuracy against the lost share of the retention suite; each method is a point with its intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "learning"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for way in WAYS:
        scores, lost = by_context(rows, way.name, "accuracy"), by_context(rows, way.name, "lost")
        x, y = mean_estimate(list(lost.values()), low=-1.0), mean_estimate(list(scores.values()))
        if x is None or y is None:
            continue
        axes.errorbar(x.mean, y.mean, xerr=_bars(x), yerr=_bars(y), fmt="o", capsize=3, label=way.label)
    teacher = mean_estimate(list(by_context(rows, "open_book", "accuracy").values()))
    if teacher is not None:
        axes.axhline(teacher.mean, linestyle=":", color="grey", label=_REFERENCES["open_book"])
    axes.axvspan(0, 0.1, alpha=0.08, color="green")
    axes.set(xlabel="share of the retention suite lost", ylabel="accuracy on the held-out questions", ylim=(0, 1))
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def page(text: str, rows: Sequence[Row], note: str) -> str:
    """The page with the measured table."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{note}\n\n{table(rows)}\n{END}{after}"


def _figures(values: Mapping[str, float], *, low: float = 0.0, high: float = 1.0) -> str:
    found = mean_estimate(list(values.values()), low=low, high=high)
    return "–" if found is None else f"{found.mean:.3f} [{found.low:.2f}, {found.high:.2f}]"


def _against(first: Mapping[str, float], scores: Mapping[str, float]) -> str:
    shared = sorted(first.keys() & scores.keys())
    gain = paired_difference([first[c] for c in shared], [scores[c] for c in shared])
    return "–" if gain is None else f"{gain.mean:+.3f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def _bars(estimate: Estimate) -> list[list[float]]:
    return [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
