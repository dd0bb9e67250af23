"""Panels without a time axis: how Grafana makes one table of the newest values, and what it draws of it.

Field names are Grafana's: a Prometheus query in table format has a field for each label, `Time`, and `Value`, or
`Value #A` beside other queries. An XY chart needs frame, x and y of each series, or it draws none.
"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import xychart as xy
from grafana_foundation_sdk.models.common import TableCellBackgroundDisplayMode, TableColoredBackgroundCellOptions
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue
from grafana_foundation_sdk.models.xychart import SeriesMapping

from deploy.grafana.panel import Panel

LETTERS = "ABCDEFGH"
"""Ids of a panel's queries, in order."""
_POINT_SIZE = 8


def lay_out(widget: Any, panel: Panel) -> None:
    """Adds to the widget what its kind needs."""
    if panel.kind == "matrix":
        _matrix(widget, panel)
    elif len(panel.queries) > 1:
        _one_table(widget, panel)
    if panel.kind == "xy":
        _points(widget, panel)
    for query in panel.queries:
        if query.unit:
            widget.override_by_name(query.legend, [DynamicConfigValue(id_val="unit", value=query.unit)])
    for column in dict.fromkeys(link.column for link in panel.links):
        links = [
            {"title": link.title, "url": link.url, "targetBlank": True} for link in panel.links if link.column == column
        ]
        widget.override_by_name(column, [DynamicConfigValue(id_val="links", value=links)])


def _one_table(widget: Any, panel: Panel) -> None:
    """One row for each set of labels, with a column for each query."""
    names = {f"Value #{letter}": query.legend for letter, query in zip(LETTERS, panel.queries, strict=False)}
    _transform(widget, "merge", {})
    _transform(widget, "organize", {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names})


def _points(widget: Any, panel: Panel) -> None:
    """A point for each row, with all its fields in the tooltip."""
    x, y = (query.legend for query in panel.queries)
    series = (
        xy.XYSeriesConfig()
        .frame(xy.XychartXYSeriesConfigFrame().matcher(_matcher("byIndex", 0)))
        .x(xy.XychartXYSeriesConfigX().matcher(_matcher("byName", x)))
        .y(xy.XychartXYSeriesConfigY().matcher(_matcher("byName", y)))
    )
    widget.mapping(SeriesMapping.MANUAL).series([series])
    widget.point_size(xy.XychartFieldConfigPointSize().fixed(_POINT_SIZE))


def _matrix(widget: Any, panel: Panel) -> None:
    """Coloured cells. Labels are text, so numbers are converted before they are sorted; Grafana sorts by one field at a
    time and keeps the order of equal ones, so the last one counts most."""
    row, column = panel.sides
    conversions = [{"targetField": label, "destinationType": "number"} for label in panel.order[1:]]
    _transform(widget, "convertFieldType", {"conversions": conversions, "fields": {}})
    for label in reversed(panel.order):
        _transform(widget, "sortBy", {"fields": {}, "sort": [{"field": label}]})
    matrix = {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "null"}
    _transform(widget, "groupingToMatrix", matrix)
    # The column of row names is named after both sides; its text has no threshold.
    plain = DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"})
    widget.override_by_name(f"{row}\\{column}", [plain])
    widget.cell_options(TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC))


def _transform(widget: Any, name: str, options: dict[str, Any]) -> None:
    widget.with_transformation(DataTransformerConfig(id_val=name, options=options))


def _matcher(name: str, options: object) -> Any:
    return xy.MatcherConfig().id(name).options(options)
