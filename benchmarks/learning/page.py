"""The table and the plot from the measured rows, and the page with both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.ways import WAYS
from benchmarks.page import bars, difference, figures, plotted, with_section
from sealkit.stats import mean_estimate

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
                f"| {label} | {len(scores)} | {figures(scores)} | {difference(first, scores)} | – | – | – | – | – |"
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
            figures(scores),
            "" if way.name == AGAINST else difference(first, scores),
            figures(by_context(rows, way.name, "lost"), low=-1.0),
            figures(by_context(rows, way.name, "kl"), low=0.0, high=float("inf")),
            f"{fmean(row['tokens'] for row in own):,.0f} + {fmean(row['teacher_tokens'] for row in own):,.0f}",
            f"{fmean(row['train_cpu_seconds'] for row in own):.0f}",
            f"{fmean(row['ask_cpu_seconds'] for row in own):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        if routed := [row for row in rows if row["way"] == way.behind_routes]:
            lines.append(_routed_line(routed, way.label, first))
    return "\n".join(lines)


def _routed_line(rows: Sequence[Row], label: str, against: Mapping[str, float]) -> str:
    """The adapters of all passages as one policy of each seed. Its retention is that of one policy, on all of the
    suite, with the interval over its questions."""
    way, seeds = rows[0]["way"], len({row["seed"] for row in rows})
    scores = by_context(rows, way, "accuracy")
    of_seed = list({row["seed"]: row for row in rows}.values())
    lost, low, high = (fmean(row[name] for row in of_seed) for name in ("lost", "lost_low", "lost_high"))
    cells = [
        f"**{label}; behind routes**",
        f"{len(scores)} × {seeds}" if seeds > 1 else str(len(scores)),
        figures(scores),
        difference(against, scores),
        f"{lost:.3f} [{low:.2f}, {high:.2f}] of {of_seed[0]['kept']}",
        f"{fmean(row['kl'] for row in of_seed):.3f}",
        "as above",
        "",
        "",
    ]
    return f"| {' | '.join(cells)} |"


def plot(rows: Sequence[Row], file: Path) -> None:
    """Accuracy against the lost share of the retention suite; each method is a point with its intervals."""
    with plotted(file, size=(8, 8)) as axes:
        for way in WAYS:
            scores, lost = by_context(rows, way.name, "accuracy"), by_context(rows, way.name, "lost")
            x, y = mean_estimate(list(lost.values()), low=-1.0), mean_estimate(list(scores.values()))
            if x is None or y is None:
                continue
            (point, *_) = axes.errorbar(x.mean, y.mean, xerr=bars(x), yerr=bars(y), fmt="o", capsize=3, label=way.label)
            routed = by_context(rows, way.behind_routes, "accuracy")
            if (y := mean_estimate(list(routed.values()))) is not None:
                at = fmean(by_context(rows, way.behind_routes, "lost").values())
                axes.errorbar(
                    at,
                    y.mean,
                    yerr=bars(y),
                    fmt="*",
                    markersize=12,
                    color=point.get_color(),
                    capsize=3,
                    label=f"{way.label}; behind routes",
                )
        teacher = mean_estimate(list(by_context(rows, "open_book", "accuracy").values()))
        if teacher is not None:
            axes.axhline(teacher.mean, linestyle=":", color="grey", label=_REFERENCES["open_book"])
        axes.axvspan(0, 0.1, alpha=0.08, color="green")
        axes.set(xlabel="share of the retention suite lost", ylabel="accuracy on the held-out questions")
        axes.set_ylim(0, 1.03)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1))


def page(text: str, rows: Sequence[Row], note: str) -> str:
    """The page with the measured table."""
    return with_section(text, "table", f"{note}\n\n{table(rows)}")
