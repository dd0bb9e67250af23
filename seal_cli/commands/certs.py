"""`seal certs`: certificates for TLS between the services, and for callers."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer

from seal_cli.console import out
from sealkit.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Certificates and tokens for TLS.")

Folder = Annotated[Path, typer.Argument(help="Folder of the authority; made where there is none.")]


@app.command()
def make(
    folder: Folder = Path("secrets/tls"),
    name: Annotated[list[str] | None, typer.Option(help="For whom; default: the services and one operator.")] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address that is dialled; for the controller, unless --name says for whom."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long they are valid.")] = 397,
    renew: Annotated[bool, typer.Option("--renew", help="New ones also where the old ones are good.")] = False,
) -> None:
    """Issues what is missing or ends within a month. Running services take up new files by themselves."""
    from seal_cli import certs

    issued = certs.make(folder, name or ["controller"], hosts=host or [], days=days, renew=renew)
    if not name:  # nobody else is called from outside: its certificate is to be of no use there
        others = [service for service in certs.SERVICES if service != "controller"]
        issued += certs.make(folder, [*others, "operator"], hosts=[], days=days, renew=renew)
    out.print(f"issued for {', '.join(issued)} in {folder}" if issued else f"all in {folder} are good")


@app.command()
def token(
    file: Annotated[Path, typer.Argument(help="Where the token is written, readable by you alone.")],
) -> None:
    """Makes a bearer token, and prints the digest that the callers file wants."""
    made = secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise InvalidInput(
            f"{file} is there already; name another file, or remove it if its token is not used"
        ) from error
    file.write_text(made + "\n", encoding="utf-8")
    out.print(f'token_sha256 = "{hashlib.sha256(made.encode()).hexdigest()}"', soft_wrap=True)
