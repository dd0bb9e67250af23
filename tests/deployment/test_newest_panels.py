"""Panels without a time axis, as Grafana reads them: fields, queries and variables that are named exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.grafana import generate
from deploy.grafana.boards import BOARDS
from deploy.grafana.frames import LETTERS
from scripts import write_metrics_table

ROOT = write_metrics_table.TARGET.parents[1]
Panel = dict[str, Any]


@pytest.fixture(scope="module")
def boards() -> dict[str, Any]:
    return {board.uid: json.loads(generate.render(board)) for board in BOARDS}


def panels(boards: dict[str, Any]) -> Iterator[Panel]:
    for board in boards.values():
        yield from (panel for panel in board["panels"] if panel["type"] != "row")


def titled(boards: dict[str, Any], title: str) -> Panel:
    [found] = [panel for panel in panels(boards) if panel["title"] == title]
    return found


def labels_of(panel: Panel) -> set[str]:
    """The labels that its queries give: of `max by`, and the ones that label_join makes."""
    found: set[str] = set()
    for target in panel["targets"]:
        [by] = re.findall(r"max by \(([^)]*)\)", target["expr"])
        found |= {label.strip() for label in by.split(",")}
        found |= set(re.findall(r'label_join\(.*\), "(\w+)", ', target["expr"]))
    return found


def columns_of(panel: Panel) -> set[str]:
    """The fields after `merge` and `organize`; Grafana names the value of a query beside others `Value #A`."""
    transforms = {one["id"]: one["options"] for one in panel["transformations"]}
    values = {f"Value #{target['refId']}" for target in panel["targets"]}
    assert transforms["organize"]["renameByName"].keys() == values
    assert transforms["organize"]["excludeByName"] == {"Time": True}
    return labels_of(panel) | set(transforms["organize"]["renameByName"].values())


def test_gain_against_retention_is_an_xy_chart_of_two_newest_values(boards: dict[str, Any]) -> None:
    panel = titled(boards, "Gain against retention")
    assert panel["type"] == "xychart"
    assert panel["options"]["mapping"] == "manual"
    [series] = panel["options"]["series"]
    assert series == {
        "frame": {"matcher": {"id": "byIndex", "options": 0}},
        "x": {"matcher": {"id": "byName", "options": "gain"}},
        "y": {"matcher": {"id": "byName", "options": "retention"}},
    }
    assert [one["id"] for one in panel["transformations"]] == ["merge", "organize"]
    assert {"gain", "retention", "run", "round"} == columns_of(panel)
    assert [(one["format"], one["instant"]) for one in panel["targets"]] == [("table", True)] * 2


def test_r_is_a_matrix_with_rows_and_columns_in_the_order_of_their_numbers(boards: dict[str, Any]) -> None:
    panel = titled(boards, "R: accuracy on each context after each commit")
    labels = labels_of(panel)
    *before, matrix = panel["transformations"]
    assert matrix["id"] == "groupingToMatrix"
    assert matrix["options"] == {
        "rowField": "after", "columnField": "context", "valueField": "Value", "emptyValue": "null"
    }  # fmt: skip
    assert {"after", "context"} <= labels
    converted, *sorts = before
    assert converted["options"]["conversions"] == [
        {"targetField": label, "destinationType": "number"} for label in ("commit", "context")
    ]
    # Each sorting keeps the order of equal ones, so the last one counts most.
    assert [one["options"]["sort"] for one in sorts] == [[{"field": name}] for name in ("context", "commit", "run")]
    assert panel["fieldConfig"]["defaults"]["custom"]["cellOptions"]["type"] == "color-background"
    [plain] = panel["fieldConfig"]["overrides"]
    assert plain["matcher"] == {"id": "byName", "options": "after\\context"}


def test_a_run_links_to_its_report_at_a_place_that_is_a_setting(boards: dict[str, Any]) -> None:
    panel = titled(boards, "Runs")
    columns = columns_of(panel)
    overrides = panel["fieldConfig"]["overrides"]
    assert {one["matcher"]["options"] for one in overrides} <= columns
    [links] = [one["properties"][0]["value"] for one in overrides if one["matcher"]["options"] == "run"]
    assert [link["url"] for link in links] == [
        "${reports:raw}/report-${__value.raw}.html",
        "/d/seal-forgetting?var-run=${__value.raw}",
    ]
    [variable] = [one for one in boards["seal-runs"]["templating"]["list"] if one["name"] == "reports"]
    assert (variable["type"], variable["query"]) == ("textbox", "/reports")
    assert "seal-forgetting" in boards


def test_no_link_has_a_fixed_host_and_every_variable_exists(boards: dict[str, Any]) -> None:
    for uid, board in boards.items():
        known = {one["name"] for one in board["templating"].get("list", ())}
        text = json.dumps(board)
        assert "://" not in text, uid
        assert {name for name in re.findall(r"\$\{?(\w+)", text) if not name.startswith("__")} <= known


def test_every_panel_is_within_the_grid_and_none_covers_another(boards: dict[str, Any]) -> None:
    for uid, board in boards.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24, (uid, panel["title"])
            assert not cells & taken, (uid, panel["title"])
            taken |= cells


def test_the_schema_is_that_of_the_grafana_that_compose_pins(boards: dict[str, Any]) -> None:
    """Series of an XY chart have had frame, x and y matchers since Grafana 11."""
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    [major] = re.findall(r"grafana:(\d+)\.", image)
    assert int(major) >= 11
    assert max(len(panel["targets"]) for panel in panels(boards)) <= len(LETTERS)
