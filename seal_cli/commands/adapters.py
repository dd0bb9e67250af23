"""`seal adapters`: list, verify, gc. The first two read only the store, so they work without a running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect, embedded_store
from sealkit.errors import FailedPrecondition, SealError

if TYPE_CHECKING:
    from pathlib import Path

    from sealkit.store import AdapterStore

app = typer.Typer(help="Inspect and clean the adapter store.", no_args_is_help=True)

Store = Annotated[
    str, typer.Option("--store", envvar="SEAL_STORE_URL", help="URL of a store. Default: the one in the data folder.")
]


@app.command("list")
def list_adapters(store: Store = "", as_json: AsJson = False, data: Data = DEFAULT_DATA) -> None:
    """Digests of the adapters, and the folder of each if the store is on this machine."""
    from seal_cli.console import show, show_json

    opened = _open(store, data)
    found = [(digest, opened.local_path(digest)) for digest in opened.list()]
    if as_json:
        show_json([{"digest": digest, "folder": folder} for digest, folder in found])
        return
    for digest, folder in found:
        show(f"{digest}  {folder or ''}")


@app.command()
def verify(
    digests: Annotated[list[str] | None, typer.Argument(help="Which ones. Default: all.")] = None,
    store: Store = "",
    as_json: AsJson = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Check every byte of adapters against their digests; exit code 1 if one is corrupt, 2 if there is none."""
    from seal_cli.console import fail, show, show_json

    opened = _open(store, data)
    chosen = digests or opened.list()
    faults: dict[str, str] = {}
    code = 0
    for digest in chosen:
        try:
            opened.fetch(digest)
        except SealError as error:
            code = max(code, fail(error))
            faults[digest] = error.message
    if as_json:
        show_json([{"digest": one, "intact": one not in faults, "error": faults.get(one, "")} for one in chosen])
    else:
        show(f"{len(chosen) - len(faults)} of {len(chosen)} adapters are intact")
    if code:
        raise typer.Exit(code)


@app.command()
def gc(
    grace: Annotated[str, typer.Option(help="Keep adapters that are younger than this: 30m, 24h, 7d.")] = "24h",
    delete: Annotated[bool, typer.Option("--delete", help="Delete them. Without it they are only listed.")] = False,
    store: Store = "",
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """List adapters that no trial and no policy of the controller references; with --delete, delete them.

    Do not use this on a store that several controllers share: each knows only its own adapters.
    """
    from seal_cli.console import show, show_json
    from seal_cli.garbage import find_garbage

    seconds, opened = _seconds(grace), _open(store, data)
    with connect(address, data) as client:
        found = find_garbage(opened, client, seconds)
    removed = [one for one in found if not delete or _delete(opened, one.digest, seconds)]
    if as_json:
        show_json({"deleted": delete, "adapters": removed})
        return
    for one in removed:
        show(f"{one.digest}  {one.age_seconds / 3600:.1f} h  {one.bytes / 1e6:.1f} MB")
    size = sum(one.bytes for one in removed) / 1e6
    ending = "deleted" if delete else "would be deleted; --delete does it"
    show(f"{len(removed)} adapters, {size:.1f} MB, {ending}")


def _delete(store: AdapterStore, digest: str, grace_seconds: float) -> bool:
    """Whether it was deleted; False if it was stored again in the meantime."""
    if store.age_seconds(digest) <= grace_seconds:
        return False
    store.delete(digest)
    return True


def _seconds(words: str) -> float:
    """`90s`, `30m`, `24h` or `7d` in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = words[:-1], words[-1:]
    if unit not in units or not number.isdecimal():
        raise typer.BadParameter(f"{words!r} is not a time such as 30m, 24h or 7d")
    return float(int(number) * units[unit])


def _open(store: str, data: Path) -> AdapterStore:
    try:
        from sealkit.store import AdapterStore
    except ImportError as error:
        raise FailedPrecondition(
            f"the adapter store needs {error.name}: pip install 'seal-suite[controller]'"
        ) from error
    return AdapterStore(store or str(embedded_store(data)))
