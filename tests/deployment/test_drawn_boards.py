"""Boards drawn without a Grafana: what Prometheus answers is on the picture, holes and empty panels too."""

from __future__ import annotations

import io
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from deploy.grafana import draw, newest
from deploy.grafana.panel import Board, Panel, Query, Row
from deploy.grafana.picture import _with_gaps
from deploy.grafana.units import STEPS, Line, scale

ANSWERS: dict[str, Any] = {
    "up": [({"job": "a"}, [0, 1, 2, 3]), ({"job": "b"}, [1, float("nan"), 1, 1])],
    "ratio": [({}, [0.0, 0.5, 1.0, 0.5])],
    "buckets": [({"le": "0.5"}, [0, 1, 1, 1]), ({"le": "1"}, [0, 1, 2, 2]), ({"le": "+Inf"}, [0, 1, 2, 3])],
    "matrix": [({"commit": "10"}, [0.5]), ({"commit": "9"}, [0.25])],
    "gain": [({"round": "0"}, [0.1]), ({"round": "1"}, [0.3])],
    "retention": [({"round": "1"}, [0.8]), ({"round": "0"}, [0.9])],
    "nothing": [],
}


class Answering(BaseHTTPRequestHandler):
    """A Prometheus that knows some queries; what is asked of it is kept in `asked`."""

    asked: list[dict[str, str]]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query)) | {"path": path}
        self.asked.append(asked)
        known = asked["query"] in ANSWERS
        found = [
            {"metric": labels, "value": [0, str(values[-1])]}
            if path.endswith("/query")
            else {
                "metric": labels,
                "values": [[float(asked["start"]) + 60 * n, str(value)] for n, value in enumerate(values)],
            }
            for labels, values in ANSWERS.get(asked["query"], ())
        ]
        self.send_response(200 if known else 400)
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"result": found}} if known else {"error": "parse error"}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[tuple[str, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answering,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def panel(query: str, kind: Any = "timeseries", unit: str = "short", needs: str = "", **more: Any) -> Panel:
    return Panel(query, "Shown.", unit, (Query(query, "{{job}}", needs),), kind=kind, **more)


def board(*panels: Panel) -> Board:
    return Board(
        "seal-drawn", "Drawn", "For a test.", (Row("First", panels), Row("Empty", (panel("nothing", needs="x"),)))
    )


def test_a_board_of_all_kinds_is_drawn(
    prometheus: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, asked = prometheus
    kinds = [
        panel("up", steps=((2, "red"),)),
        panel("ratio", unit="percentunit", low=0, high=1),
        panel("buckets", "heatmap"),
        panel("up", "stat"),
        panel("matrix", "table"),
        panel("matrix", "matrix", sides=("commit", "commit"), order=("commit",), steps=((0.3, "green"),)),
        replace(panel("gain", "xy"), queries=(Query("gain", "gain"), Query("retention", "retention"))),
        replace(panel("gain", "table"), queries=(Query("gain", "gain"), Query("retention", "retention"))),
        panel("nothing", needs="a miracle"),
    ]
    monkeypatch.setattr(draw, "BOARDS", (board(*kinds),))
    assert draw.main(["--prometheus", url, "--out", str(tmp_path), "--minutes", "4", "--end", "1000"]) == 0
    image = Image.open(io.BytesIO((tmp_path / "seal-drawn.png").read_bytes()))
    pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert pixels.shape[1] > 1000
    newest = {one["path"] for one in asked if one["query"] in ("matrix", "gain", "retention")}
    assert newest == {"/api/v1/query"}
    assert {(one["start"], one["end"]) for one in asked if one["query"] == "ratio"} == {("760.0", "1000.0")}


def test_rows_and_points_are_those_of_equal_labels() -> None:
    def line(name: str, value: float, **labels: str) -> Line:
        return Line(name, labels, ((0.0, value),))

    lines = [
        line("gain", 0.1, round="10"), line("gain", 0.3, round="9"), line("gain", 0.4, round="11"),
        line("retention", 0.8, round="9"), line("retention", 0.9, round="10"),
    ]  # fmt: skip
    both = (Query("gain", "gain"), Query("retention", "retention", unit="percentunit"))
    axes = Figure().add_subplot()
    newest.points(axes, replace(panel("gain", "xy"), queries=both), lines)
    assert sorted(map(tuple, axes.collections[0].get_offsets().tolist())) == [(0.1, 0.9), (0.3, 0.8)]
    card = Figure().add_subplot()
    newest.table(card, replace(panel("gain", "table"), queries=both), lines)
    wanted = [["round", "gain", "retention"], ["9", "0.3", "80 %"], ["10", "0.1", "90 %"], ["11", "0.4", ""]]
    assert cells(card) == wanted


def test_a_matrix_is_in_the_order_of_its_numbers() -> None:
    found = {("a", "10"): 0.5, ("a", "9"): 0.2, ("b", "9"): 0.9}
    lines = [
        Line("", {"run": run, "commit": commit, "context": "0", "after": f"{run} / {commit}"}, ((0.0, value),))
        for (run, commit), value in found.items()
    ]
    shown = panel(
        "matrix", "matrix", "percentunit", steps=((0.34, "yellow"),), first="red", sides=("after", "context"),
        order=("run", "commit", "context"),
    )  # fmt: skip
    card = Figure().add_subplot()
    newest.matrix(card, shown, lines)
    assert cells(card) == [["after \\ context", "0"], ["a / 9", "20 %"], ["a / 10", "50 %"], ["b / 9", "90 %"]]
    colours = [to_hex(card.tables[0][row, 1].get_facecolor()) for row in (1, 2, 3)]
    assert colours == [STEPS["red"], STEPS["yellow"], STEPS["yellow"]]


def cells(card: Axes) -> list[list[str]]:
    found = card.tables[0].get_celld()
    rows, columns = (1 + max(side) for side in zip(*found, strict=True))
    return [[found[row, column].get_text().get_text() for column in range(columns)] for row in range(rows)]


def test_a_query_that_prometheus_refuses_ends_with_its_words(
    prometheus: tuple[str, list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, _ = prometheus
    monkeypatch.setattr(draw, "BOARDS", (board(panel("sum((")),))
    assert draw.main(["--prometheus", url, "--out", str(tmp_path)]) == 1
    assert "Drawn: sum((: " in (said := capsys.readouterr().err)
    assert "parse error" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_number_is_left_out_and_legends_are_filled_in(
    prometheus: tuple[str, list[dict[str, str]]],
) -> None:
    source = draw.Source(prometheus[0], draw.Span(0, 240))
    first, second = source.lines(panel("up"))
    assert [first.name, second.name] == ["a", "b"]
    assert second == Line("b", {"job": "b"}, ((0, 1), (120, 1), (180, 1)))
    assert draw.legend("{{ a }} of {{b}}{{c}}", {"a": "x", "b": "y"}) == "x of y"


def test_a_line_has_a_hole_where_points_are_missing() -> None:
    times, values = _with_gaps(((0.0, 1.0), (1.0, 2.0), (10.0, 3.0), (11.0, 4.0)))
    assert list(times) == [0, 1, 10, 10, 11]
    assert [str(value) for value in values] == ["1.0", "2.0", "nan", "3.0", "4.0"]


@pytest.mark.parametrize(
    ("unit", "most", "name"), [("s", 90, " s"), ("s", 120, " min"), ("bytes", 2**31, " GiB"), ("short", 500, "")]
)
def test_a_unit_is_as_large_as_the_values(unit: str, most: float, name: str) -> None:
    assert scale(unit, most).name == name
