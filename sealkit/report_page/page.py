"""The page of a run's report, from what was collected.

Whatever a run holds (names, self-edits, answers) is text on the page and nothing else: the template escapes every
value, control characters and those that turn the direction of writing are shown as escapes, long texts are cut, and a
content security policy allows only the page's own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sealkit.report_page import charts
from sealkit.report_page.charts import Point
from sealkit.report_page.collect import Asked, Collected, WholeTrial
from sealkit.report_page.labels import CONTINUAL_LEGEND, LEGEND, SPLITS, STAGES, duration
from sealkit.report_page.toml import toml_of
from sealkit.reports import Continual, Cost, Estimate, ReportRow
from sealkit.resources import Editor, GateState, Trial
from sealkit.shown import visible
from sealkit.types import Usage

_HERE = Path(__file__).parent
_TRIALS = 1000
"""Trials in the table; `seal trials list` has all."""
_LOST = 40
"""Lost questions that are shown."""
_MATRIX = 24
"""With more contexts than this, R is a picture only; `--json` has its numbers."""


def render(collected: Collected) -> str:
    """The page: one HTML document that loads nothing."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            style=Markup(style),
            style_digest=digest,
            run=collected.run,
            report=collected.report,
            collected=collected,
            settings=_settings(collected.run.config),
            splits=_splits(collected.report.rows),
            rounds=_rounds(collected.report.rows),
            forgetting=_forgetting(collected.trials),
            continual=_continual(collected.report.continual),
            lost=_lost(collected.chosen),
            stages=_stages(collected.report.cost, collected.report.stage_seconds),
            round_costs=[(number, _total(cost), cost) for number, cost in sorted(collected.report.round_costs.items())],
            total=_total(collected.report.cost),
            lineage=_lineage(collected),
            trials=collected.trials[:_TRIALS],
            versions=_versions(collected),
            toml=toml_of(collected.run.config),
            command="adapt" if collected.run.config.get("task") == "adapt" else "run",
            legend=LEGEND,
            continual_legend=CONTINUAL_LEGEND,
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"clip": clip, "duration": duration, "signed": _signed, "number": _number}
    made.globals |= {"stage_name": lambda stage: STAGES.get(stage, stage)}
    return made


def _shown(value: Any) -> Any:
    """Of every expression of the template, before it is escaped."""
    return visible(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def clip(text: str, most: int) -> str:
    """The first `most` characters of a text, and how many are left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of the settings that say most about a run. The config may be that of another version."""

    def at(path: str) -> Any:
        found: Any = config
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    tasks = {"rest_em": "train the policy to write self-edits", "adapt": "learn the contexts one after the other"}
    named = [
        ("task", tasks.get(str(at("task")), at("task"))),
        ("domain", at("domain.name")),
        ("dataset", at("dataset.path")),
        ("rounds", at("rounds")),
        ("contexts a round", at("contexts_per_round")),
        ("self-edits a context", at("editor.k")),
        ("editors", ", ".join(map(str, at("editor.arms") or ()))),
        ("objective", at("inner_loop.objective")),
        ("adapters start from", at("inner_loop.start_from")),
        ("selection", at("selection.rule")),
        ("judge", at("evaluation.judge")),
        ("most forgetting allowed", at("gate.max_forgetting")),
        ("start policy", at("start_policy")),
        ("seed", at("seed")),
    ]
    return [(label, str(value)) for label, value in named if value not in (None, "")]


def _splits(rows: Sequence[ReportRow]) -> list[tuple[str, list[tuple[ReportRow, Markup]]]]:
    """The rows of each split, each with its interval drawn; the tick is at the accuracy without an adapter."""
    found = []
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        base = next((row.accuracy.mean for row in own if row.key == f"{split}.base"), None)
        drawn = [(row, charts.interval(row.accuracy, base)) for row in own]
        found.append((SPLITS.get(split, split), drawn))
    return found


def _rounds(rows: Sequence[ReportRow]) -> tuple[Markup, list[tuple[Markup, str]]] | None:
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


def _forgetting(trials: Sequence[Trial]) -> tuple[Markup, list[tuple[Markup, str]], int] | None:
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


def _continual(found: Continual | None) -> dict[str, Any] | None:
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


def _lost(chosen: Sequence[WholeTrial]) -> dict[str, Any]:
    """Questions that chosen trials answer wrong and were answered right before: of the contexts, and of retention. An
    evaluation stores the ids of lost retention questions, but not the answers."""
    own: list[tuple[Trial, Asked]] = [
        (whole.trial, asked) for whole in chosen for asked in whole.asked if asked.lost and asked.query is not None
    ]
    retention: dict[str, tuple[Any, list[str]]] = {}
    for whole in chosen:
        for query in whole.material.lost if whole.material else ():
            retention.setdefault(query.query_id, (query, []))[1].append(whole.trial.name)
    return {
        "own": own[:_LOST],
        "own_total": len(own),
        "retention": sorted(retention.values(), key=lambda pair: -len(pair[1]))[:_LOST],
        "retention_total": len(retention),
    }


def _total(cost: Cost) -> Usage:
    return sum(cost.stages.values(), Usage())


def _stages(cost: Cost, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each stage with its usage, mean seconds of a trial, and a bar of its device time relative to the longest; if
    there is no device time, of its tokens."""
    most = max((usage.device_seconds for usage in cost.stages.values()), default=0.0)
    most_tokens = max((usage.tokens for usage in cost.stages.values()), default=0)
    found = []
    for stage in dict.fromkeys([*cost.stages, *seconds]):
        usage = cost.stages.get(stage, Usage())
        drawn = charts.share(usage.device_seconds, most) if most else charts.share(usage.tokens, most_tokens)
        found.append({"name": STAGES.get(stage, stage), "usage": usage, "seconds": seconds.get(stage), "drawn": drawn})
    return found


def _lineage(collected: Collected) -> list[dict[str, Any]]:
    """The policies from the base model on. Those of earlier runs have no number in this one."""
    aliases: dict[str, list[str]] = {}
    for alias in collected.aliases:
        aliases.setdefault(alias.policy, []).append(alias.name)
    gates = {
        GateState.PASSED: "passed the gate",
        GateState.REFUSED: "refused by the gate",
        GateState.PENDING: "not yet compared",
    }
    return [
        {
            "policy": policy,
            "number": None if earlier else number,
            "gate": gates.get(policy.gate, ""),
            "aliases": aliases.get(policy.name, []),
        }
        for earlier, policies in ((True, collected.ancestors), (False, collected.report.policies))
        for number, policy in enumerate(policies)
    ]


def _versions(collected: Collected) -> list[tuple[str, str]]:
    """Versions of the software and digests of the models, from the manifest of one of the trials."""
    for whole in (*collected.best, *collected.chosen, *collected.worst):
        versions = whole.trial.manifest.get("versions")
        if isinstance(versions, Mapping) and versions:
            return sorted((str(name), str(version)) for name, version in versions.items())
    return []
