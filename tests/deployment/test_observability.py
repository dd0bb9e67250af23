"""Dashboards, rules and metrics hold together. What the queries answer is tested over a real Prometheus elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana import generate
from deploy.grafana.boards import BOARDS
from scripts import write_metrics_table
from sealkit.observability import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
CASES = RULES.with_name("rules_test.yml")
_OWN = re.compile(r"\bseal_[a-z0-9_]+\b")
_SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def declared() -> set[str]:
    """Names of the metrics that telemetry declares, without the suffixes of their kind."""
    declared_here = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    named = {description.name for metric in declared_here for description in metric.describe()}
    return named | set(metrics.RUN_GAUGES) | set(metrics.GPU_GAUGES)


def unknown(expression: str) -> set[str]:
    names = set(_OWN.findall(expression))
    stems = {name: {name, *(name.removesuffix(end) for end in _SUFFIXES)} for name in names}
    return {name for name, ways in stems.items() if not ways & declared()}


def test_every_panel_asks_for_metrics_that_exist() -> None:
    asked = [query.expr for board in BOARDS for row in board.rows for panel in row.panels for query in panel.queries]
    assert {name for expr in asked for name in unknown(expr)} == set()


def test_every_alert_asks_for_metrics_that_exist_and_has_a_runbook() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {name for rule in rules for name in unknown(rule["expr"])} == set()
    headings = (ROOT / "docs/operations.md").read_text()
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in headings


def test_every_panel_has_a_unit_and_says_what_it_shows() -> None:
    panels = [panel for board in BOARDS for row in board.rows for panel in row.panels]
    assert all(panel.unit and panel.description.endswith(".") and panel.queries for panel in panels)
    for board in BOARDS:
        titles = [panel.title for row in board.rows for panel in row.panels]
        assert len(titles) == len(set(titles))


def test_dashboards_are_what_the_code_makes() -> None:
    assert generate.main(["--check"]) == 0


def test_the_page_has_every_metric_every_board_and_every_alert() -> None:
    assert write_metrics_table.main(["--check"]) == 0
    assert {name.removesuffix("_total") for name, *_ in write_metrics_table.rows()} == declared()
    page = write_metrics_table.TARGET.read_text()
    for board in BOARDS:
        assert f"(pictures/{board.uid}.png)" in page
        assert (ROOT / f"docs/pictures/{board.uid}.png").stat().st_size < 150_000
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Seal[A-Z]\w+)`", page)) == alerts


def test_every_alert_is_tested_to_fire_and_not_to() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    tests = [test for case in yaml.safe_load(CASES.read_text())["tests"] for test in case["alert_rule_test"]]
    assert {test["alertname"] for test in tests if test["exp_alerts"]} == alerts
    assert {test["alertname"] for test in tests if not test["exp_alerts"]} == alerts


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian's package prometheus has it)")
def test_alerts_fire_when_they_should() -> None:
    tested = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
