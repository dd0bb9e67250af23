"""`seal runs`: list, get, watch, pause, cancel, resume, report, cost."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.commands.run import exit_as, follow_run, follow_to_end
from seal_cli.options import DEFAULT_DATA, Address, AlwaysJson, AsJson, Data, Limit, connect, embedded_store
from sealkit.names import full_name

if TYPE_CHECKING:
    from sealkit.resources import Run

app = typer.Typer(help="Show runs; pause, cancel and resume them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="runs/…, as `seal runs list` shows it.")]


@app.command("list")
def list_runs(limit: Limit = 20, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Runs, newest first."""
    from seal_cli.console import moment, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        found = list(islice(client.list_runs(), limit))
    if as_json:
        show_json(found)
        return
    rows = [
        (
            run.name,
            run.display_name,
            f"{run.state.value}, outdated config" if run.unread_config else run.state.value,
            _progress(run.progress.trials_done, run.progress.trials_total),
            moment(run.create_time),
            run.tenant,
        )
        for run in found
    ]
    print_listing(("run", "name", "state", "trials", "created", "tenant"), rows)


@app.command()
def get(name: Name, json: AlwaysJson = True, address: Address = "", data: Data = DEFAULT_DATA) -> None:  # noqa: ARG001
    """One run with its whole config, as JSON."""
    from seal_cli.console import show_json

    with connect(address, data) as client:
        show_json(client.get_run(full_name("runs", name)))


@app.command()
def watch(
    name: Name,
    latest: Annotated[
        int | None,
        typer.Option(min=0, max=1000, help="Of the events so far only the latest. 0: all. Default: 300 on a terminal."),
    ] = None,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Follow a run until it ends: from its start, on a terminal from its latest events. With --json each event is a
    line of JSON."""
    name, embedded = full_name("runs", name), None if address else data
    with connect(address, data) as client:
        if as_json:
            exit_as(follow_run(client, name, embedded, as_json=True, events_as_json=True, latest=latest or 0))
        else:
            follow_to_end(client, name, embedded, latest=latest)


@app.command()
def cancel(name: Name, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Stop a run. Its results so far are kept."""
    with connect(address, data) as client:
        _show_state(client.cancel_run(full_name("runs", name)), as_json)


@app.command()
def pause(name: Name, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Start no more trials of a run; those in progress finish."""
    with connect(address, data) as client:
        _show_state(client.pause_run(full_name("runs", name)), as_json)


@app.command()
def resume(
    name: Name,
    trials: Annotated[int | None, typer.Option(min=1, help="New budget: trials in all.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="New budget: tokens in all.")] = None,
    device_seconds: Annotated[float | None, typer.Option(min=0, help="New budget: device seconds in all.")] = None,
    wall_seconds: Annotated[
        float | None, typer.Option(min=0, help="New budget: seconds of running time in all.")
    ] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="New budget: none.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Resume a paused, failed or cancelled run. A new budget replaces the whole old one."""
    from sealkit.resources import Budget

    limits = {"trials": trials, "tokens": tokens, "device_seconds": device_seconds, "wall_seconds": wall_seconds}
    given = {key: value for key, value in limits.items() if value is not None}
    with connect(address, data) as client:
        run = client.resume_run(full_name("runs", name), Budget.model_validate(given) if given or unlimited else None)
    _show_state(run, as_json, f"; watch it with: seal runs watch {run.name}")


@app.command()
def report(
    name: Name,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """The report of a run, finished or not."""
    from seal_cli.console import show_json
    from seal_cli.report import print_report

    with connect(address, data) as client:
        found = client.report(full_name("runs", name))
        if as_json:
            show_json(found)
        else:
            print_report(client.get_run(full_name("runs", name)), found, embedded_store(data) if not address else None)


@app.command()
def cost(
    name: Name,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Tokens and device seconds by round and stage."""
    from seal_cli.console import show_json
    from seal_cli.cost import COST_COLUMNS, cost_rows
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        found = client.report(full_name("runs", name))
    if as_json:
        show_json({"cost": found.cost, "round_costs": found.round_costs})
    else:
        print_listing(COST_COLUMNS, cost_rows(found.round_costs, found.cost))


def _show_state(run: Run, as_json: bool, then: str = "") -> None:
    from seal_cli.console import show, show_json

    if as_json:
        show_json(run)
    else:
        show(f"{run.name}: {run.state.value}{then}")


def _progress(done: int, total: int) -> str:
    return f"{done}/{total}" if total else ""
