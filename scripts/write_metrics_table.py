"""Writes the table of metrics in docs/observability.md, from sealkit/observability/metrics.py: `python -m
scripts.write_metrics_table [--check]`; with --check it only says whether the page differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from deploy.generated import settle
from sealkit.observability import metrics

TARGET = Path(__file__).parents[1] / "docs/observability.md"
BEGIN = "<!-- metrics: written by python -m scripts.write_metrics_table, held by a test -->\n"
END = "<!-- end of metrics -->\n"


def rows() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name as Prometheus has it, kind, labels and help of every metric, in the order of their declaration."""
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            (about,) = value.describe()
            name = f"{about.name}_total" if about.type == "counter" else about.name
            yield name, about.type, tuple(value._labelnames), about.documentation
        elif value is metrics.RUN_GAUGES:
            yield from ((name, "gauge", labels, text) for name, (text, labels) in metrics.RUN_GAUGES.items())
        elif value is metrics.GPU_GAUGES:
            yield from ((name, "gauge", ("gpu", "uuid"), text) for name, text in metrics.GPU_GAUGES.items())


def page(text: str) -> str:
    """The page with the table as it should be."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for name, kind, labels, about in rows():
        said = about.replace("||", "‖").replace("|", r"\|")
        lines.append(f"| `{name}` | {kind} | {', '.join(labels) or '–'} | {said} |")
    return before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after


def main(arguments: list[str]) -> int:
    """Writes the page, or with `--check` says whether it is as it should be; the exit code."""
    wanted = {TARGET: page(TARGET.read_text(encoding="utf-8"))}
    return settle(wanted, arguments, command="python -m scripts.write_metrics_table")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
