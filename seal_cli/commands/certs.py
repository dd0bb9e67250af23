"""`seal certs`: certificates for TLS between the services, and for callers."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer

from seal_cli.console import show, show_json
from seal_cli.options import AsJson
from sealkit.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Certificates and tokens for TLS.")

Folder = Annotated[Path, typer.Argument(help="Folder of the authority; created if missing.")]


@app.command()
def make(
    folder: Folder = Path("secrets/tls"),
    name: Annotated[
        list[str] | None, typer.Option(help="Issue for these names. Default: the services and one operator.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name or address that callers dial; for the controller and the gateway, unless --name is given."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="Days of validity.")] = 397,
    renew: Annotated[bool, typer.Option("--renew", help="Also replace certificates that are still valid.")] = False,
    as_json: AsJson = False,
) -> None:
    """Issue what is missing or expires within a month. Running services reload new files by themselves."""
    from seal_cli import certs

    issued = certs.make(folder, name or certs.CALLED_FROM_OUTSIDE, hosts=host or [], days=days, renew=renew)
    if not name:
        others = [service for service in certs.SERVICES if service not in certs.CALLED_FROM_OUTSIDE]
        issued += certs.make(folder, [*others, "operator"], hosts=[], days=days, renew=renew)
    if as_json:
        show_json({"folder": folder, "issued": issued})
    else:
        show(f"issued for {', '.join(issued)} in {folder}" if issued else f"all certificates in {folder} are valid")


@app.command()
def token(
    file: Annotated[Path, typer.Argument(help="File that the token is written to, readable only by you.")],
    as_json: AsJson = False,
) -> None:
    """Create a bearer token, and print its digest for the callers file."""
    made = secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise InvalidInput(f"{file} exists; name another file, or remove it if its token is not in use") from error
    file.write_text(made + "\n", encoding="utf-8")
    digest = hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        show_json({"file": file, "token_sha256": digest})
    else:
        show(f'token_sha256 = "{digest}"')
