"""`seal report`: the report of a run as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect

NO_PAGE = "--json prints what the page shows and writes none; leave out --out and --open"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(report)


def report(
    name: Annotated[str, typer.Argument(metavar="RUN|ALIAS", help="A run, or an alias: the run of its policy.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: report-RUN.html in this folder.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Write the report of a run as one HTML page that loads nothing: charts, lost questions, self-edits, cost."""
    import webbrowser

    from seal_cli.console import say, show, show_json
    from sealkit.errors import InvalidInput
    from sealkit.names import id_of
    from sealkit.report_page.collect import collect, run_of

    if as_json and (out or open_it):
        raise InvalidInput(NO_PAGE)
    with connect(address, data) as client:
        collected = collect(client, run_of(client, name))
    if as_json:
        show_json(collected)
        return
    from sealkit.report_page.page import render

    file = out or Path(f"report-{id_of(collected.run.name)}.html")
    _write(file, render(collected))
    show(str(file))
    if open_it and not webbrowser.open(file.resolve().as_uri()):
        say(f"no browser could be started; open {file.resolve()}")


def _write(file: Path, text: str) -> None:
    """Writes a whole file or none: an earlier page stays if the disk is full."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
