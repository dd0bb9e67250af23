"""`seal adapters`: list, verify. They read the store itself, so they work while no service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Data, embedded_store
from sealkit.errors import FailedPrecondition, SealError

if TYPE_CHECKING:
    from pathlib import Path

    from sealkit.store import AdapterStore

app = typer.Typer(help="Look at the adapter store.", no_args_is_help=True)

Store = Annotated[
    str, typer.Option("--store", envvar="SEAL_STORE_URL", help="URL of a store. Default: that of the data folder.")
]


@app.command("list")
def list_adapters(store: Store = "", data: Data = DEFAULT_DATA) -> None:
    """Digests of the adapters, with where each lies where that is a folder of this machine."""
    from seal_cli.console import out

    opened = _open(store, data)
    for digest in opened.list():
        out.print(f"{digest}  {opened.local_path(digest) or ''}", markup=False, soft_wrap=True)


@app.command()
def verify(
    digests: Annotated[list[str] | None, typer.Argument(help="Which; default: every one.")] = None,
    store: Store = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Check every byte of adapters against their digests; exit code 1 where one is not whole."""
    from seal_cli.console import fail, out

    opened = _open(store, data)
    chosen = digests or opened.list()
    faulty = 0
    for digest in chosen:
        try:
            opened.fetch(digest)
        except SealError as error:
            fail(error)
            faulty += 1
    out.print(f"{len(chosen) - faulty} of {len(chosen)} adapters are whole", markup=False)
    if faulty:
        raise typer.Exit(1)


def _open(store: str, data: Path) -> AdapterStore:
    try:
        from sealkit.store import AdapterStore
    except ImportError as error:
        raise FailedPrecondition(
            f"the adapter store needs {error.name}: pip install 'seal-suite[controller]'"
        ) from error
    return AdapterStore(store or str(embedded_store(data)))
