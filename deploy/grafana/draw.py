"""Draws the dashboards from a Prometheus, without Grafana: for the docs, and to view a run later.

python -m deploy.grafana.draw --prometheus http://127.0.0.1:9090 --board seal-runs --out docs/pictures [--minutes 60]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.grafana.boards import BOARDS
from deploy.grafana.panel import NEWEST, Board, Panel, Query
from deploy.grafana.picture import draw
from deploy.grafana.units import Line

POINTS = 240
"""Most points of a line; Grafana requests about as many as a panel has pixels."""
_ASK_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Span:
    """Start and end (Unix seconds), and the step between points. `rate`: the window of a rate in seconds."""

    start: float
    end: float
    rate: int = 60

    @property
    def step(self) -> float:
        return max(1.0, (self.end - self.start) / POINTS)


class Refused(Exception):
    """Prometheus does not answer, or rejects the query."""


class Source:
    """A Prometheus over a time range."""

    def __init__(self, url: str, span: Span) -> None:
        self._url = url.rstrip("/")
        self.span = span

    def lines(self, panel: Panel) -> list[Line]:
        """Results of the panel's queries; values that are not numbers are left out. Raises Refused."""
        return [line for query in panel.queries for line in self._answer(query, instant=panel.kind in NEWEST)]

    def _answer(self, query: Query, *, instant: bool) -> list[Line]:
        asked = query.expr.replace("$__rate_interval", f"{self.span.rate}s").replace("$run", ".*")
        if instant:
            found = self._ask("query", query=asked, time=self.span.end)
        else:
            found = self._ask("query_range", query=asked, start=self.span.start, end=self.span.end, step=self.span.step)
        return [
            Line(
                name=legend(query.legend, series["metric"]) or query.legend,
                labels=series["metric"],
                points=tuple(
                    (float(at), float(value))
                    for at, value in (series["values"] if "values" in series else [series["value"]])
                    if math.isfinite(float(value))
                ),
            )
            for series in found
        ]

    def _ask(self, method: str, **parameters: Any) -> list[dict[str, Any]]:
        address = f"{self._url}/api/v1/{method}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=_ASK_SECONDS) as reply:
                found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            raise Refused(f"{parameters['query']}: {error.read().decode()}") from error
        except OSError as error:
            raise Refused(f"{self._url} does not answer: {error}") from error


def legend(pattern: str, labels: dict[str, str]) -> str:
    """Fills in `{{label}}` as Grafana does."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), pattern).strip()


def picture(board: Board, source: Source) -> bytes:
    """The board as a PNG. Raises Refused."""
    rows = [(row.title, [(panel, source.lines(panel)) for panel in row.panels]) for row in board.rows]
    return draw(board.title, rows, start=source.span.start, end=source.span.end)


def main(arguments: list[str] | None = None) -> int:
    """Draws the named boards, or all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.draw", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its URL")
    parser.add_argument("--board", action="append", choices=[board.uid for board in BOARDS], help="all, unless named")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder for the pictures")
    parser.add_argument("--minutes", type=float, default=60, help="length of the time range")
    parser.add_argument("--end", type=float, default=None, help="end of the time range, in Unix seconds; default: now")
    parser.add_argument("--rate-seconds", type=int, default=60, help="$__rate_interval: at least four scrapes")
    given = parser.parse_args(arguments)
    end = time.time() if given.end is None else given.end
    source = Source(given.prometheus, Span(end - 60 * given.minutes, end, given.rate_seconds))
    given.out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        if given.board and board.uid not in given.board:
            continue
        try:
            made = picture(board, source)
        except Refused as error:
            sys.stderr.write(f"{board.title}: {error}\n")
            return 1
        path = given.out / f"{board.uid}.png"
        path.write_bytes(made)
        sys.stdout.write(f"{path} ({len(made) // 1024} KB)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
