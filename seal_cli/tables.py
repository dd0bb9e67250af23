"""Lists of resources: a table for a person, tab-separated lines for a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from seal_cli.console import at_terminal, out, styled
from sealkit.shown import visible


def print_listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints `rows` under `columns`. Off a terminal: no header, one line per row, nothing cut off."""
    rows = list(rows)
    if not at_terminal():
        out.file.writelines("\t".join(map(visible, row)) + "\n" for row in rows)
        return
    if not rows:
        out.print("[dim]none[/]")
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(styled(cell) for cell in row))
    out.print(table)
