"""`seal audit`: list."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, Limit, connect

app = typer.Typer(help="The audit log: who changed what, and whose change was refused.", no_args_is_help=True)


@app.command("list")
def list_entries(
    resource: Annotated[str, typer.Option(help="Only on this resource (runs/…, aliases/…) and those below it.")] = "",
    caller: Annotated[str, typer.Option(help="Only by this caller; a run (runs/…) is a caller too.")] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Entries, newest first. An admin sees all tenants, an operator its own."""
    from seal_cli.console import moment, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        entries = list(islice(client.list_audit_entries(resource=resource, caller=caller), limit))
    if as_json:
        show_json(entries)
        return
    rows = [
        (
            moment(entry.time),
            f"{entry.caller} ({entry.role})",
            entry.tenant,
            entry.action,
            entry.resource,
            entry.outcome,
            entry.detail,
            entry.request_id,
        )
        for entry in entries
    ]
    print_listing(("time", "caller", "tenant", "action", "on", "outcome", "detail", "request"), rows)
