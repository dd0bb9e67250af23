"""`seal runs`: list, get, watch, pause, cancel, resume, report."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.commands.run import follow_to_end
from seal_cli.options import DEFAULT_DATA, Address, Data, Limit, connect, embedded_store
from sealkit.names import full_name

app = typer.Typer(help="Show runs; pause, cancel and resume them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="runs/…, as `seal runs list` shows it.")]


@app.command("list")
def list_runs(limit: Limit = 20, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Runs, newest first."""
    from seal_cli.console import moment
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        rows = [
            (
                run.name,
                run.display_name,
                f"{run.state.value}, outdated config" if run.unread_config else run.state.value,
                _progress(run.progress.trials_done, run.progress.trials_total),
                moment(run.create_time),
                run.tenant,
            )
            for run in islice(client.list_runs(), limit)
        ]
    print_listing(("run", "name", "state", "trials", "created", "tenant"), rows)


@app.command()
def get(name: Name, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """One run with its whole config, as JSON."""
    from seal_cli.console import out

    with connect(address, data) as client:
        out.print_json(client.get_run(full_name("runs", name)).model_dump_json())


@app.command()
def watch(name: Name, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Follow a run from its start until it ends."""
    with connect(address, data) as client:
        follow_to_end(client, full_name("runs", name), None if address else data)


@app.command()
def cancel(name: Name, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Stop a run. Its results so far are kept."""
    from seal_cli.console import out

    with connect(address, data) as client:
        run = client.cancel_run(full_name("runs", name))
    out.print(f"{run.name}: {run.state.value}", markup=False)


@app.command()
def pause(name: Name, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Start no more trials of a run; those in progress finish."""
    from seal_cli.console import out

    with connect(address, data) as client:
        run = client.pause_run(full_name("runs", name))
    out.print(f"{run.name}: {run.state.value}", markup=False)


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
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Resume a paused, failed or cancelled run. A new budget replaces the whole old one."""
    from seal_cli.console import out
    from sealkit.resources import Budget

    limits = {"trials": trials, "tokens": tokens, "device_seconds": device_seconds, "wall_seconds": wall_seconds}
    given = {key: value for key, value in limits.items() if value is not None}
    with connect(address, data) as client:
        run = client.resume_run(full_name("runs", name), Budget.model_validate(given) if given or unlimited else None)
    out.print(f"{run.name}: {run.state.value}; watch it with: seal runs watch {run.name}", markup=False)


@app.command()
def report(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """The report of a run, finished or not."""
    from seal_cli.console import out
    from seal_cli.report import print_report

    with connect(address, data) as client:
        found = client.report(full_name("runs", name))
        if as_json:
            out.print_json(found.model_dump_json())
        else:
            print_report(client.get_run(full_name("runs", name)), found, embedded_store(data) if not address else None)


@app.command()
def cost(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Tokens and device seconds by round and stage."""
    from seal_cli.console import out
    from seal_cli.cost import COST_COLUMNS, cost_rows
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        found = client.report(full_name("runs", name))
    if as_json:
        out.print_json(found.model_dump_json(include={"cost", "round_costs"}))
    else:
        print_listing(COST_COLUMNS, cost_rows(found.round_costs, found.cost))


def _progress(done: int, total: int) -> str:
    return f"{done}/{total}" if total else ""
