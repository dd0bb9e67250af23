"""`seal services`."""

from __future__ import annotations

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("services")(services)


def services(as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """How busy the stack is: each replica of the model services, and the runs with trials to do."""
    from seal_cli.console import show_json
    from seal_cli.load import print_load

    with connect(address, data) as client:
        load = client.get_load()
    if as_json:
        show_json(load)
    else:
        print_load(load)
