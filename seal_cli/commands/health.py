"""`seal health`: the health check of a container."""

from __future__ import annotations

from typing import Annotated

import typer

from seal_cli.options import AsJson


def register(app: typer.Typer) -> None:
    """Adds `seal health` to the application."""
    app.command("health")(health)


def health(
    address: Annotated[str, typer.Argument(help="host:port of any service; http(s)://host:port of the gateway.")],
    service: Annotated[str, typer.Option(help="A gRPC service's full name. Default: the whole server.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Ask a service whether it is ready; exit code 0 if it is, else 1."""
    from seal_cli.console import say, show, show_json
    from seal_cli.health import not_serving
    from seal_cli.options import own_identity

    reason = not_serving(address, service, timeout, identity=own_identity())
    if as_json:
        show_json({"address": address, "ready": not reason, "reason": reason})
    else:
        show(f"{address}: {'not ready' if reason else 'ready'}")
    if reason:
        say(reason)
        raise typer.Exit(1)
