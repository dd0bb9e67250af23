"""`seal learn`: documents as they are, learned one after the other on an alias."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.commands.run import follow_created
from seal_cli.options import (
    DEFAULT_DATA,
    Address,
    AsJson,
    CancelOnInterrupt,
    Data,
    Follow,
    LearnConfig,
    Settings,
    connect,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Alias = Annotated[str, typer.Option("--alias", help="The alias that learns them; created with the first one learned.")]


def register(app: typer.Typer) -> None:
    """Adds `seal learn` to the application."""
    app.command("learn")(learn)


def learn(
    files: Annotated[list[str], typer.Argument(help="Files and folders: text, Markdown, HTML, PDF, DOCX; - is stdin.")],
    alias: Alias,
    config: LearnConfig = None,
    settings: Settings = None,
    follow: Follow = True,
    cancel_on_interrupt: CancelOnInterrupt = False,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Learn documents one after the other. Each is adopted wholly or not at all; the report shows what was
    lost and how long it took."""
    from seal_cli.console import counted
    from seal_cli.recipe import learning_recipe

    recipe = learning_recipe(config, settings or ())
    found = read(files)
    with connect(address, data) as client:
        created = client.learn(alias, found, config=recipe.config, retention=recipe.retention, anchors=recipe.anchors)
        waits = f"; {created.progress.stage}" if created.progress.stage != "queued" else ""
        follow_created(
            client, created, f"{counted(len(found), 'document')} to learn{waits}",
            None if address else data, follow=follow, cancel_on_interrupt=cancel_on_interrupt, as_json=as_json,
        )  # fmt: skip


def read(paths: list[str]) -> Mapping[str, bytes]:
    """The bytes of the files, by name. Those that cannot be read are named on stderr. Raises InvalidDocument if there
    is no other."""
    from seal_cli.console import say
    from sealkit.documents.sources import sources_of
    from sealkit.errors import InvalidDocument, SealError

    found: dict[str, bytes] = {}
    faults = []
    for source in sources_of(paths, sys.stdin.buffer):
        try:
            found[source.name] = source.load()
        except SealError as error:
            faults.append(f"{source.name}: {error.message}")
            say(f"left out: {faults[-1]}")
    if not found:
        raise InvalidDocument(f"there is no document to learn: {'; '.join(faults)}")
    return found
