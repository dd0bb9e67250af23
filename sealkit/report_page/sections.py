"""The charts of a run with their legends, as the report and the live page show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sealkit.report_page import charts
from sealkit.report_page.charts import Point
from sealkit.report_page.environment import clip
from sealkit.report_page.labels import SPLITS
from sealkit.reports import Continual, Estimate, ReportRow
from sealkit.resources import Editor, Trial

_MATRIX = 24
"""With more contexts than this, R is a picture only; `--json` has its numbers."""


def splits(rows: Sequence[ReportRow]) -> list[tuple[str, list[tuple[ReportRow, Markup]]]]:
    """The rows of each split, each with its interval drawn; the tick is at the accuracy without an adapter."""
    found = []
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        base = next((row.accuracy.mean for row in own if row.key == f"{split}.base"), None)
        drawn = [(row, charts.interval(row.accuracy, base)) for row in own]
        found.append((SPLITS.get(split, split), drawn))
    return found


def rounds(rows: Sequence[ReportRow]) -> tuple[Markup, list[tuple[Markup, str]]] | None:
    """Mean accuracy of each policy's self-edits by split, and the legend; None with one policy only."""
    by_split: dict[str, list[tuple[int, Estimate]]] = {}
    for row in rows:
        split, _, rest = row.key.partition(".")
        version = rest.removeprefix("theta_").removesuffix(".self_edit.mean")
        if rest.startswith("theta_") and version.isdecimal():
            by_split.setdefault(split, []).append((int(version), row.accuracy))
    series = [(SPLITS.get(split, split), points) for split, points in list(by_split.items())[:3]]
    if max((len(points) for _, points in series), default=0) < 2:
        return None
    chart = charts.rounds(series, "Accuracy of the self-edits of each policy; the numbers are in the tables above.")
    return chart, [(charts.key(number), name) for number, (name, _) in enumerate(series)]


def forgetting(trials: Sequence[Trial]) -> tuple[Markup, list[tuple[Markup, str]], int] | None:
    """Gain against forgetting, its legend, and the number of points; None if no trial has both."""
    points = []
    for trial in trials:
        gained = trial.gain
        if gained is None or trial.forgetting is None:
            continue
        kind = {Editor.POLICY: 0, Editor.PASSAGE_ONLY: 1}.get(trial.editor, 2)  # type: ignore[call-overload]
        title = f"{clip(trial.name, 200)}: gain {gained:+.3f}, forgetting {trial.forgetting:+.3f}"
        points.append(Point(trial.forgetting, gained, title, kind, trial.selected))
    if not points:
        return None
    words = {0: "self-edit by the policy", 1: "passage only", 2: "another editor"}
    legend = [(charts.key(kind), words[kind]) for kind in sorted({point.kind for point in points})]
    if any(point.chosen for point in points):
        legend.append((charts.key(0, chosen=True), "chosen"))
    label = f"{len(points)} trials as points: gain in accuracy against forgetting; the table below has the numbers."
    return charts.scatter(points, "forgetting", "gain", label), legend, len(points)


def continual(found: Continual | None) -> dict[str, Any] | None:
    """R as a chart and, for up to `_MATRIX` contexts, as a table, with its measures (name, estimate, whether its sign
    is shown); None if the run does not learn in sequence."""
    if found is None or not found.matrix:
        return None
    label = f"R: accuracy on each of {len(found.contexts)} contexts after each of {len(found.matrix) - 1} commits"
    named = (
        ("accuracy just after learning", found.just_learned, False),
        ("accuracy at the end", found.at_end, False),
        ("BWT", found.bwt, True),
        ("forgetting of contexts", found.forgetting, True),
    )
    return {
        "chart": charts.heat_map(found.matrix, label) if found.contexts else Markup(""),
        "contexts": found.contexts if len(found.contexts) <= _MATRIX else (),
        "matrix": found.matrix,
        "measures": [(name, estimate, signed) for name, estimate, signed in named if estimate is not None],
    }
