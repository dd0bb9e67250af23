"""Makes the dashboards' JSON: `python -m deploy.grafana.generate [--check]`; with --check it only reports what
differs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, table, timeseries, xychart
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.generated import settle
from deploy.grafana.boards import BOARDS
from deploy.grafana.frames import LETTERS, lay_out
from deploy.grafana.panel import NEWEST, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="seal-prometheus")
_WIDGETS: dict[str, Any] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "heatmap": heatmap.Panel,
    "table": table.Panel,
    "xy": xychart.Panel,
    "matrix": table.Panel,
}


def render(board: Board) -> str:
    """A dashboard as Grafana's JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["seal"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .editable()
    )
    if board.by_run:
        made.with_variable(
            dashboard.QueryVariable("run")
            .label("run")
            .datasource(_SOURCE)
            .query("label_values(seal_run_progress_ratio, run)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    if board.reports:
        made.with_variable(
            dashboard.TextBoxVariable("reports")
            .label("reports at")
            .description("Where the pages that `seal report` writes are served: a URL, or a path on this server.")
            .default_value("/reports")
        )
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> Any:
    widget = (
        _WIDGETS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .span(panel.width)
        .height(panel.height)
    )
    if panel.low is not None:
        widget.min(panel.low)
    if panel.high is not None:
        widget.max(panel.high)
    if panel.steps:
        steps = [Threshold(value=None, color=panel.first)] + [Threshold(value=v, color=c) for v, c in panel.steps]
        widget.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.kind in NEWEST:
        lay_out(widget, panel)
    for letter, query in zip(LETTERS, panel.queries, strict=False):
        asked = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(letter)
        if panel.kind in NEWEST:
            asked.format(PromQueryFormat.TABLE).instant()
        if panel.kind == "heatmap":
            asked.format(PromQueryFormat.HEATMAP)
        widget.with_target(asked)
    return widget


def main(arguments: list[str]) -> int:
    """Writes the files, or with `--check` reports which are out of date; returns the exit code."""
    wanted = {FOLDER / f"{board.uid}.json": render(board) for board in BOARDS}
    return settle(wanted, arguments, command="python -m deploy.grafana.generate", beside=FOLDER.glob("*.json"))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
