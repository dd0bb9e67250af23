"""`seal health`: the health check of a container."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds `seal health` to the application."""
    app.command("health")(health)


def health(
    address: Annotated[str, typer.Argument(help="host:port of any service; http(s)://host:port of the gateway.")],
    service: Annotated[str, typer.Option(help="A gRPC service's full name. Default: the whole server.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 2.0,
) -> None:
    """Ask a service whether it is ready; exit code 0 if it is, else 1."""
    from seal_cli.console import out
    from seal_cli.health import is_serving
    from seal_cli.options import own_identity

    ready = is_serving(address, service, timeout, identity=own_identity())
    out.print(f"{address}: {'ready' if ready else 'not ready'}", markup=False)
    if not ready:
        raise typer.Exit(1)
