"""`seal policies`: list, get."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, Data, Limit, connect

app = typer.Typer(help="Look at policies: the versions of the model that writes self-edits.", no_args_is_help=True)


@app.command("list")
def list_policies(limit: Limit = 20, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Policies, newest first."""
    from seal_cli.console import moment, share
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        rows = [
            (
                policy.name,
                policy.parent,
                policy.round,
                share(policy.held_out_accuracy),
                share(policy.forgetting),
                moment(policy.create_time),
            )
            for policy in islice(client.list_policies(), limit)
        ]
    print_listing(("policy", "from", "round", "held-out accuracy", "forgetting", "created"), rows)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="policies/…")], address: Address = "", data: Data = DEFAULT_DATA
) -> None:
    """One policy with the trials that taught it, as JSON."""
    from seal_cli.console import out

    name = name if name.startswith("policies/") else f"policies/{name}"
    with connect(address, data) as client:
        out.print_json(client.get_policy(name).model_dump_json())
