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
    embedded_store,
)

if TYPE_CHECKING:
    from seal_cli.recipe import Recipe
    from sealkit.client import SealClient
    from sealkit.reports import Pace
    from sealkit.resources import Run


_LATEST = 300
"""Events so far of a run that a person begins to follow: enough for its pace."""


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
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Start a run and follow it: self-edits are sampled, tried and selected, and the policy is trained on them."""
    from seal_cli.console import counted
    from seal_cli.recipe import load_recipe

    recipe = load_recipe(config, dataset=dataset, format=format, limit=limit, settings=settings or ())
    print_notices(recipe)
    with connect(address, data) as client:
        if dry_run:
            _estimate(client, recipe, as_json)
            return
        created = create_run(client, recipe, name)
        what = f"{counted(len(recipe.records), 'record')}, {counted(created.progress.rounds_total, 'round')}"
        follow_created(
            client, created, what, None if address else data,
            follow=follow, cancel_on_interrupt=cancel_on_interrupt, as_json=as_json,
        )  # fmt: skip


def follow_created(
    client: SealClient,
    created: Run,
    what: str,
    data: Path | None,
    *,
    follow: bool,
    cancel_on_interrupt: bool,
    as_json: bool,
) -> None:
    """Says that a run was created, and `what` it works on; then follows it, or says how to."""
    from seal_cli.console import say, show, show_json

    (say if as_json else show)(f"{created.name}: {what}")
    if follow:
        follow_to_end(client, created.name, data, cancel_on_interrupt=cancel_on_interrupt, as_json=as_json)
    elif as_json:
        show_json({"run": created})
    else:
        show(f"watch it with: seal runs watch {created.name}")


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


def _estimate(client: SealClient, recipe: Recipe, as_json: bool) -> None:
    from rich.table import Table

    from seal_cli.console import out, show_json, styled
    from seal_cli.cost import estimate_facts

    with _records_located(recipe):
        estimate = client.estimate_run(recipe.config, recipe.records, anchors=recipe.anchors)
    if as_json:
        show_json(estimate)
        return
    table = Table.grid(padding=(0, 2))
    for label, value in estimate_facts(estimate):
        table.add_row(f"[dim]{label}[/]", styled(value))
    out.print(table)


def print_notices(recipe: Recipe) -> None:
    """Prints on stderr what the reader of the dataset noticed."""
    from seal_cli.console import say

    for notice in recipe.dataset.notices:
        say(f"note: {notice}")


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


def follow_to_end(
    client: SealClient,
    name: str,
    data: Path | None,
    *,
    cancel_on_interrupt: bool = False,
    as_json: bool = False,
    latest: int | None = None,
) -> None:
    """Follows a run and prints its report, or both as JSON; exits with 1 unless it succeeded. `data`, `latest` and
    interruptions are as in `follow_run`."""
    from seal_cli.console import show_json
    from seal_cli.report import print_report

    ended = follow_run(client, name, data, cancel_on_interrupt=cancel_on_interrupt, as_json=as_json, latest=latest)
    report = client.report(name)
    if as_json:
        show_json({"run": ended, "report": report})
    else:
        print_report(ended, report, embedded_store(data) if data else None)
    exit_as(ended)


def follow_run(
    client: SealClient,
    name: str,
    data: Path | None,
    *,
    cancel_on_interrupt: bool = False,
    as_json: bool = False,
    events_as_json: bool = False,
    latest: int | None = None,
) -> Run:
    """The run once it has ended. Its progress is shown on stdout, or on stderr if stdout is for JSON. An interruption
    cancels the run or says that it continues, and is raised again.

    `data` is the embedded stack's data folder; None for any other controller. With `events_as_json` each
    event is a line on stdout. `latest`: how many events so far are shown, 0 for all; None: on a terminal some.
    """
    from seal_cli.console import at_terminal, err, out, say, show_json_line
    from seal_cli.follow import follow
    from seal_cli.liveness import report_dead_services

    console = err if as_json else out
    try:
        with report_dead_services(data, console):
            if latest is None:
                latest = _LATEST if at_terminal(console) else 0
            events = client.watch_run(
                name, latest=latest, on_wait=lambda error: say(f"waiting for the controller: {error.message}")
            )
            if events_as_json:
                for event in events:
                    show_json_line(event)
            else:
                follow(events, console, _earlier_pace(client, name))
    except KeyboardInterrupt:
        if cancel_on_interrupt:
            client.cancel_run(name)
            say(f"\n{name} is cancelled; resume it with: seal runs resume {name}")
        else:
            say(f"\n{name} continues in the background.")
            say(f"  watch it:  seal runs watch {name}\n  stop it:   seal runs cancel {name}")
        raise
    return client.get_run(name)


def _earlier_pace(client: SealClient, name: str) -> Pace | None:
    """The pace of earlier runs; none from a controller that does not answer now, because the watcher waits for it."""
    from sealkit.errors import Unavailable

    try:
        return client.get_run_pace(name)
    except Unavailable:
        return None


def exit_as(ended: Run) -> None:
    """Exits with 1 unless the run succeeded, and says how to go on."""
    from seal_cli.console import say
    from sealkit.resources import RunState

    if ended.state is not RunState.SUCCEEDED:
        if ended.error:
            say(f"error {ended.error.message}")
        say(f"{ended.name} {ended.state.value}; resume it with: seal runs resume {ended.name}")
        raise typer.Exit(1)
