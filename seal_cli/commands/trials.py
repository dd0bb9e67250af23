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


@app.command()
def replay(
    name: Annotated[str, typer.Argument(help="runs/…/rounds/…/trials/…")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a trial again from its manifest and say what differs. Exit code 0: nothing does."""
    from seal_cli.console import err, out
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        started = client.replay_trial(name)
        err.print(f"{started.name} is made; waiting for it", markup=False)
        found = client.wait_replay(started.name)
    if as_json:
        out.print_json(found.model_dump_json())
    elif found.identical:
        out.print(f"identical: {found.original}", markup=False)
    else:
        rows = [(d.field, _on_one_line(d.recorded), _on_one_line(d.replayed)) for d in found.differences]
        print_listing(("what", "recorded", "replayed"), rows)
    if not found.identical:
        raise typer.Exit(1)


def _on_one_line(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", " ")
