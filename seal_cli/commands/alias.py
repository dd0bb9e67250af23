"""`seal alias`: set, show, list, rollback, diff, forget, export."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, Follow, LearnConfig, Limit, Settings, connect
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
    config: LearnConfig = None,
    settings: Settings = None,
    follow: Follow = True,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a version without documents, then delete everything that was stored of them. Cannot be undone."""
    from seal_cli.commands.run import follow_created
    from seal_cli.console import counted
    from seal_cli.recipe import learning_recipe

    recipe = learning_recipe(config, settings or ())
    with connect(address, data) as client:
        created = client.forget(
            name, *documents, config=recipe.config, retention=recipe.retention, anchors=recipe.anchors
        )
        follow_created(
            client, created, f"{counted(len(documents), 'document')} to forget",
            None if address else data, follow=follow, cancel_on_interrupt=False, as_json=as_json,
        )  # fmt: skip


@app.command()
def show(
    name: Name,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Where its version comes from: documents, trials, policies, base model.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Current and earlier policies of an alias, newest first; or the lineage of its version."""
    from seal_cli.console import moment, out, show_json
    from seal_cli.lineage import lineage_tree
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        if lineage:
            found = client.get_lineage(full_name("aliases", name))
            if as_json:
                show_json(found)
            else:
                out.print(lineage_tree(found))
            return
        alias = client.get_alias(full_name("aliases", name))
    if as_json:
        show_json(alias)
        return
    rows = [(change.policy, moment(change.time), change.reason) for change in alias.history]
    print_listing(("policy", "since", "why"), rows)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="An alias, or policies/…")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """What the second version answers right that the first does not, and the other way round, question by question."""
    from seal_cli.console import show_json
    from seal_cli.lineage import print_difference
    from sealkit.learning import difference

    with connect(address, data) as client:
        found = difference(*(client.get_lineage(_version_name(name)) for name in (first, second)))
    if as_json:
        show_json(found)
    else:
        print_difference(found)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="The alias, or policies/…")],
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    merged: Annotated[bool, typer.Option("--merged", help="Full weights: the adapter merged into the base.")] = False,
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder of the base model. Default: that of the stack in --data.")
    ] = None,
    store: Annotated[
        str, typer.Option("--store", envvar="SEAL_STORE_URL", help="URL of the adapter store, likewise.")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Write a version as a folder that PEFT and vLLM load, with a model card; or merged, for any program."""
    from seal_cli.console import show, show_json
    from seal_cli.export import export_version

    with connect(address, data) as client:
        found = client.get_lineage(_version_name(name))
    export_version(found, folder, store=store, base=base, merged=merged, data=data)
    if as_json:
        show_json({"policy": found.version.name, "folder": str(folder)})
        return
    show(f"{found.version.name} → {folder}")


def _version_name(name: str) -> str:
    return name if name.startswith("policies/") else full_name("aliases", name)


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
