"""`seal alias`: set, show, list, rollback, forget."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, Follow, Limit, Settings, connect
from sealkit.names import full_name

if TYPE_CHECKING:
    from sealkit.resources import Alias

app = typer.Typer(help="Names that point to published policies and can be rolled back.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The alias: small letters, digits and -.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


@app.command("set")
def set_alias(
    name: Name,
    policy: Annotated[str, typer.Argument(help="policies/…, one that passed the gate.")],
    reason: Reason = "",
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Point an alias to a policy. The alias is created if it does not exist."""
    policy = full_name("policies", policy)
    with connect(address, data) as client:
        _print_alias(client.set_alias(full_name("aliases", name), policy, reason=reason), as_json)


@app.command()
def rollback(
    name: Name, reason: Reason = "", as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA
) -> None:
    """Point an alias to its previous policy. Each further call goes one step further back."""
    with connect(address, data) as client:
        _print_alias(client.roll_back_alias(full_name("aliases", name), reason=reason), as_json)


@app.command()
def forget(
    name: Name,
    documents: Annotated[list[str], typer.Argument(help="Documents that it knows, by name or digest.")],
    settings: Settings = None,
    follow: Follow = True,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Train the alias again without documents, then delete everything that was stored of them. Cannot be undone."""
    from seal_cli.commands.run import follow_created
    from seal_cli.recipe import config_with

    with connect(address, data) as client:
        created = client.forget(name, *documents, config=config_with(None, settings or ()))
        follow_created(
            client, created, f"{len(documents)} document{'s' * (len(documents) != 1)} to forget",
            None if address else data, follow=follow, cancel_on_interrupt=False, as_json=as_json,
        )  # fmt: skip


@app.command()
def show(name: Name, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Current and earlier policies of an alias, newest first."""
    from seal_cli.console import moment, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        alias = client.get_alias(full_name("aliases", name))
    if as_json:
        show_json(alias)
        return
    rows = [(change.policy, moment(change.time), change.reason) for change in alias.history]
    print_listing(("policy", "since", "why"), rows)


@app.command("list")
def list_aliases(limit: Limit = 20, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Aliases by name."""
    from seal_cli.console import moment, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        found = list(islice(client.list_aliases(), limit))
    if as_json:
        show_json(found)
        return
    print_listing(
        ("alias", "policy", "since", "tenant"),
        [(alias.name, alias.policy, moment(alias.history[0].time), alias.tenant) for alias in found],
    )


def _print_alias(alias: Alias, as_json: bool) -> None:
    from seal_cli import console

    if as_json:
        console.show_json(alias)
    else:
        console.show(f"{alias.name} → {alias.policy}")
