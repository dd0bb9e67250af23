"""`seal run`: create a run, follow it until it ends, show its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import (
    DEFAULT_DATA,
    Address,
    CancelOnInterrupt,
    Data,
    Dataset,
    DatasetFormat,
    Follow,
    RecordLimit,
    RunName,
    Settings,
    connect,
    embedded_store,
)

if TYPE_CHECKING:
    from seal_cli.recipe import Recipe
    from sealkit.client import SealClient
    from sealkit.resources import Run


def register(app: typer.Typer) -> None:
    """Adds `seal run` to the application."""
    app.command("run")(run)


def run(
    config: Annotated[Path, typer.Argument(help="A run's config, in TOML; see configs/.")],
    dataset: Dataset = None,
    format: DatasetFormat = "auto",
    limit: RecordLimit = None,
    name: RunName = "",
    settings: Settings = None,
    follow: Follow = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Start nothing; estimate trials, tokens and time from past runs.")
    ] = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Start a run and follow it: self-edits are sampled, tried and selected, and the policy is trained on them."""
    from seal_cli.console import out
    from seal_cli.recipe import load_recipe

    recipe = load_recipe(config, dataset=dataset, format=format, limit=limit, settings=settings or ())
    print_notices(recipe)
    with connect(address, data) as client:
        if dry_run:
            _estimate(client, recipe)
            return
        created = create_run(client, recipe, name)
        used = len(recipe.records)
        rounds = created.progress.rounds_total
        out.print(f"{created.name}: {used} records, {rounds} round{'s' * (rounds != 1)}", markup=False)
        if follow:
            follow_to_end(client, created.name, None if address else data, cancel_on_interrupt=cancel_on_interrupt)
        else:
            out.print(f"watch it with: seal runs watch {created.name}", markup=False)


def create_run(client: SealClient, recipe: Recipe, name: str) -> Run:
    """Creates the run of a recipe. Raises InvalidDataset that names the file, InvalidConfig."""
    with _records_located(recipe):
        return client.create_run(
            recipe.config,
            recipe.records,
            recipe.retention,
            anchors=recipe.anchors,
            display_name=name or recipe.config.name,
        )


def _estimate(client: SealClient, recipe: Recipe) -> None:
    from rich.markup import escape
    from rich.table import Table

    from seal_cli.console import out
    from seal_cli.cost import estimate_facts

    with _records_located(recipe):
        estimate = client.estimate_run(recipe.config, recipe.records, anchors=recipe.anchors)
    table = Table.grid(padding=(0, 2))
    for label, value in estimate_facts(estimate):
        table.add_row(f"[dim]{label}[/]", escape(value))
    out.print(table)


def print_notices(recipe: Recipe) -> None:
    """Prints on stderr what the reader of the dataset noticed."""
    from seal_cli.console import err

    for notice in recipe.dataset.notices:
        err.print(f"note: {notice}", markup=False, soft_wrap=True)


@contextmanager
def _records_located(recipe: Recipe) -> Iterator[None]:
    """Names file and line of faulty records: the controller never sees the file."""
    from sealkit.errors import InvalidDataset, InvalidInput

    try:
        yield
    except InvalidInput as error:
        located = recipe.dataset.located(error)
        if located is not error:
            raise located from error
        if isinstance(error, InvalidDataset):
            raise InvalidDataset(f"{recipe.config.dataset.path}: {error.message}", fields=error.fields) from error
        raise


def follow_to_end(client: SealClient, name: str, data: Path | None, *, cancel_on_interrupt: bool = False) -> None:
    """Follows a run, prints its report; exits with 1 unless it succeeded. An interruption cancels the run or says that
    it continues, and is raised again.

    `data` is the embedded stack's data folder; None for any other controller.
    """
    from seal_cli.console import err, say
    from seal_cli.follow import follow
    from seal_cli.liveness import report_dead_services
    from seal_cli.report import print_report
    from sealkit.resources import RunState

    try:
        with report_dead_services(data):
            follow(client.watch_run(name, on_wait=lambda error: say(f"waiting for the controller: {error.message}")))
    except KeyboardInterrupt:
        if cancel_on_interrupt:
            client.cancel_run(name)
            err.print(f"\n{name} is cancelled; resume it with: seal runs resume {name}", markup=False)
        else:
            err.print(f"\n{name} continues in the background.", markup=False)
            err.print(f"  watch it:  seal runs watch {name}\n  stop it:   seal runs cancel {name}", markup=False)
        raise
    ended = client.get_run(name)
    print_report(ended, client.report(name), embedded_store(data) if data else None)
    if ended.state is not RunState.SUCCEEDED:
        if ended.error:
            err.print(f"error {ended.error.message}", markup=False)
        err.print(f"{name} {ended.state.value}; resume it with: seal runs resume {name}", markup=False)
        raise typer.Exit(1)
