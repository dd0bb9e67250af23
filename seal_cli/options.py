"""The options that several commands share, and which controller they talk to."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealkit.errors import InvalidConfig, Unavailable

if TYPE_CHECKING:
    from sealkit.client import SealClient
    from sealkit.rpc.tls import Identity

DEFAULT_DATA = Path(".seal")
TENANT: ContextVar[str] = ContextVar("tenant", default="")
"""Which tenant an admin acts for: `seal --tenant`, or SEAL_TENANT."""

Address = Annotated[
    str,
    typer.Option(
        envvar="SEAL_ADDRESS", help="The controller, host:port. Default: the one of the stack in the data folder."
    ),
]
Data = Annotated[Path, typer.Option("--data", envvar="SEAL_DATA", help="Data folder of the embedded stack.")]
Limit = Annotated[int, typer.Option(min=1, help="At most this many lines.")]
Dataset = Annotated[
    str | None,
    typer.Option(help="File, folder, pattern or URL (JSON, JSONL, CSV, Parquet), instead of the config's dataset."),
]
DatasetFormat = Annotated[
    str, typer.Option("--format", help="Format of the dataset: auto, json, jsonl, csv, tsv or parquet.")
]
RecordLimit = Annotated[int | None, typer.Option(min=1, help="Use at most this many records.")]
RunName = Annotated[str, typer.Option(help="A name for the run. Default: the config's.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config: --set editor.k=3.")
]
LearnConfig = Annotated[
    Path | None, typer.Option("--config", help="A run's config, in TOML, instead of the one that ships for learning.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="JSON is what this command prints.")]
Follow = Annotated[bool, typer.Option(help="Stay and show progress.")]
CancelOnInterrupt = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the run; without this it continues.")
]


def connect(address: str, data: Path) -> SealClient:
    """A client of the given controller, or else of the embedded stack's. Raises Unavailable if there is none."""
    from sealkit.client import SealClient

    return SealClient(address or embedded_address(data), identity=own_identity(), token=_token(), tenant=TENANT.get())


def own_identity() -> Identity | None:
    """The identity of SEAL_TLS_CA, SEAL_TLS_CERT and SEAL_TLS_KEY. Raises InvalidConfig if only some are set."""
    from sealkit.rpc.tls import identity_of

    return identity_of(*(os.environ.get(f"SEAL_TLS_{part}", "") for part in ("CA", "CERT", "KEY")))


def _token() -> str:
    """The bearer token in the file that SEAL_TOKEN_FILE names; empty without. Raises InvalidConfig."""
    file = os.environ.get("SEAL_TOKEN_FILE", "")
    try:
        return Path(file).read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"SEAL_TOKEN_FILE {file} cannot be read: {error}") from error


def embedded_address(data: Path) -> str:
    """Address of the controller of the stack in `data`. Raises Unavailable if none runs."""
    from seal_cli.stack.layout import CONTROLLER, Layout

    layout = Layout.at(data)
    state = layout.read_state()
    record = state.find(CONTROLLER) if state else None
    if record is None:
        raise Unavailable(
            f"no stack runs in {layout.data}; start one with `seal up`, or name a controller with --address host:port"
        )
    from seal_cli.stack import process

    if process.has_ended(record):
        raise Unavailable(f"the controller of the stack in {layout.data} died; start it again with `seal up`")
    return record.address


def embedded_store(data: Path) -> Path:
    """The folder of the adapter store of the stack in `data`."""
    from seal_cli.stack.layout import Layout

    return Layout.at(data).store
