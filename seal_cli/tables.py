"""Lists of resources: a table for a person, tab-separated lines for a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seal_cli.console import out


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """`rows` under `columns`. Where no person looks: no header, one line each, nothing cut off."""
    rows = list(rows)
    if not out.is_terminal:
        return Text(
            "\n".join("\t".join(row) for row in rows), no_wrap=True, overflow="ignore", end="\n" if rows else ""
        )
    if not rows:
        return Text("none", style="dim")
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
