"""`seal whoami`."""

from __future__ import annotations

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("whoami")(whoami)


def whoami(as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Your name, role and tenant at the controller, and the tenant's quotas with their use."""
    from seal_cli.console import show, show_json

    with connect(address, data) as client:
        caller = client.whoami()
    if as_json:
        show_json(caller)
        return
    show(f"{'name':<22} {caller.name}")
    show(f"{'role':<22} {caller.role}")
    show(f"{'tenant':<22} {caller.tenant or 'none'}")
    if not caller.tenant:
        return
    for quota in type(caller.quotas).model_fields:
        limit, used = getattr(caller.quotas, quota), getattr(caller.used, quota)
        show(f"{quota:<22} {used:,} of {f'{limit:,}' if limit else 'any number'}")
