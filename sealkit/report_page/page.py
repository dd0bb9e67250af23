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
from typing import Any

from markupsafe import Markup

from sealkit.report_page import charts, sections
from sealkit.report_page.collect import Asked, Collected, WholeTrial
from sealkit.report_page.environment import FOLDER, make_environment
from sealkit.report_page.labels import CONTINUAL_LEGEND, GATES, LEGEND, STAGES
from sealkit.report_page.toml import toml_of
from sealkit.reports import Cost
from sealkit.resources import Trial
from sealkit.types import Usage

_TRIALS = 1000
"""Trials in the table; `seal trials list` has all."""
_LOST = 40
"""Lost questions that are shown."""


def render(collected: Collected) -> str:
    """The page: one HTML document that loads nothing."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
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
            splits=sections.splits(collected.report.rows),
            rounds=sections.rounds(collected.report.rows),
            forgetting=sections.forgetting(collected.trials),
            continual=sections.continual(collected.report.continual),
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


_environment = cache(make_environment)


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of the settings that say most about a run. The config may be that of another version."""

    def at(path: str) -> Any:
        found: Any = config
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    tasks = {"rest_em": "train the policy to write self-edits", "adapt": "learn the contexts one after the other"}
    trains_policy = at("task") == "rest_em"  # a run that adapts has a round a context
    named = [
        ("task", tasks.get(str(at("task")), at("task"))),
        ("domain", at("domain.name")),
        ("dataset", at("dataset.path")),
        ("rounds", at("rounds") if trains_policy else None),
        ("contexts a round", at("contexts_per_round") if trains_policy else None),
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
    return [
        {
            "policy": policy,
            "number": None if earlier else number,
            "gate": GATES.get(policy.gate, ""),
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
