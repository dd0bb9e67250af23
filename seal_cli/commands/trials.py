"""`seal trials`: list, retry, get, rerun."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, Limit, connect
from sealkit.names import full_name

if TYPE_CHECKING:
    from sealkit.resources import Trial, TrialState

app = typer.Typer(
    help="Show trials (a self-edit, its adapter and its score each); retry and rerun them.", no_args_is_help=True
)


@app.command("list")
def list_trials(
    parent: Annotated[str, typer.Argument(help="runs/…, or runs/…/rounds/…")],
    state: Annotated[str, typer.Option(help="Only trials in this state, for example failed.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Trials of a run or of one round, in order; `seal trials get` takes their names."""
    from seal_cli.console import share, show_json
    from seal_cli.tables import print_listing

    parent = full_name("runs", parent)
    with connect(address, data) as client:
        trials = list(islice(client.list_trials(parent, _state(state)), limit))
    if as_json:
        show_json(trials)
        return
    rows = [
        (
            trial.name,
            trial.editor,
            _outcome(trial),
            share(trial.accuracy),
            share(trial.baseline_accuracy),
            share(trial.reward),
            "kept" if trial.selected else "",
        )
        for trial in trials
    ]
    print_listing(("trial", "editor", "state", "accuracy", "no adapter", "reward", ""), rows)


@app.command()
def retry(
    run: Annotated[str, typer.Argument(help="runs/…")],
    names: Annotated[
        list[str] | None, typer.Argument(help="runs/…/rounds/…/trials/… each. Default: every failed one of the run.")
    ] = None,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Retry failed trials that can still count. A run that had ended is resumed for them."""
    from seal_cli.console import show, show_json

    with connect(address, data) as client:
        found, retried = client.retry_trials(full_name("runs", run), names or ())
    if as_json:
        show_json({"run": found, "retried": retried})
    else:
        show(f"{found.name}: {retried} trials are retried; the run is {found.state.value}")


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="runs/…/rounds/…/trials/…, as `seal trials list` shows it.")],
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """One trial: its self-edit, what was trained on, every question with its answers, and what was lost."""
    from seal_cli.console import show_json
    from seal_cli.trial import print_trial
    from sealkit.report_page.collect import whole_trial

    with connect(address, data) as client:
        found = whole_trial(client, full_name("runs", name))
    if as_json:
        show_json({**dict(found.trial), "material": found.material, "without": found.without})
    else:
        print_trial(found)


@app.command()
def rerun(
    name: Annotated[str, typer.Argument(help="runs/…/rounds/…/trials/…")],
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a trial again from its manifest and print what differs. Exit code 0 if nothing does."""
    from seal_cli.console import say, show, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        started = client.rerun_trial(name)
        say(f"waiting for {started.name}")
        found = client.wait_rerun(started.name)
    if as_json:
        show_json(found)
    elif found.identical:
        show(f"identical: {found.original}")
    else:
        rows = [(d.field, d.recorded, d.rerun) for d in found.differences]
        print_listing(("what", "recorded", "rerun"), rows)
        if rows[0][0] == "weights_sha256":
            say("same training, different last bits: jobs trained in one batch round differently; see docs/rerun.md")
    if not found.identical:
        raise typer.Exit(1)


def _outcome(trial: Trial) -> str:
    return trial.rejection or (f"{trial.state.value}: {trial.error.reason}" if trial.error else trial.state.value)


def _state(name: str) -> TrialState | None:
    """Raises InvalidInput if there is no such state."""
    from sealkit.errors import InvalidInput
    from sealkit.resources import TrialState

    if not name:
        return None
    if name not in list(TrialState):
        raise InvalidInput(f"there is no state {name!r}; there are {', '.join(TrialState)}")
    return TrialState(name)
