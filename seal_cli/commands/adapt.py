"""`seal adapt`: learn documents one after the other, commit what helped, publish it under an alias."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seal_cli.commands.run import create_run, follow_created, print_notices
from seal_cli.options import (
    DEFAULT_DATA,
    Address,
    AsJson,
    CancelOnInterrupt,
    Data,
    Dataset,
    DatasetFormat,
    Follow,
    RecordLimit,
    RunName,
    Settings,
    connect,
)


def register(app: typer.Typer) -> None:
    """Adds `seal adapt` to the application."""
    app.command("adapt")(adapt)


def adapt(
    config: Annotated[Path, typer.Argument(help="A run's config, in TOML; configs/continual.toml is one.")],
    dataset: Dataset = None,
    format: DatasetFormat = "auto",
    alias: Annotated[str, typer.Option(help="Publish what passes the gate under this name.")] = "",
    limit: RecordLimit = None,
    name: RunName = "",
    settings: Settings = None,
    follow: Follow = True,
    cancel_on_interrupt: CancelOnInterrupt = False,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Learn documents one after the other. What helps and forgets little enough is committed; the rest is not."""
    from seal_cli.console import counted
    from seal_cli.recipe import load_recipe

    changes = [
        *(settings or ()),
        'task="adapt"',
        *([f'gate.alias="{alias.removeprefix("aliases/")}"'] if alias else []),
    ]
    recipe = load_recipe(config, dataset=dataset, format=format, limit=limit, settings=changes)
    print_notices(recipe)
    with connect(address, data) as client:
        created = create_run(client, recipe, name)
        follow_created(
            client, created, f"{counted(created.progress.rounds_total, 'context')} to learn",
            None if address else data, follow=follow, cancel_on_interrupt=cancel_on_interrupt, as_json=as_json,
        )  # fmt: skip
