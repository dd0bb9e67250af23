"""`seal trials`: list, get."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, Data, Limit, connect

app = typer.Typer(help="Look at trials: one self-edit, its adapter and its score each.", no_args_is_help=True)


@app.command("list")
def list_trials(
    parent: Annotated[str, typer.Argument(help="runs/…, or runs/…/rounds/…")],
    limit: Limit = 100,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Trials of a run or of one round, in order."""
    from seal_cli.console import share
    from seal_cli.tables import print_listing

    parent = parent if parent.startswith("runs/") else f"runs/{parent}"
    with connect(address, data) as client:
        rows = [
            (
                trial.name.removeprefix(f"{parent}/"),
                trial.editor,
                trial.rejection or trial.state.value,
                share(trial.accuracy),
                share(trial.baseline_accuracy),
                share(trial.reward),
                "kept" if trial.selected else "",
            )
            for trial in islice(client.list_trials(parent), limit)
        ]
    print_listing(("trial", "editor", "state", "accuracy", "no adapter", "reward", ""), rows)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="runs/…/rounds/…/trials/…")],
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """One trial with its text and every verdict, as JSON."""
    from seal_cli.console import out

    with connect(address, data) as client:
        out.print_json(client.get_trial(name).model_dump_json())
