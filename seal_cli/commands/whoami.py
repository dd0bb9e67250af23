"""`seal whoami`."""

from __future__ import annotations

import typer

from seal_cli.options import DEFAULT_DATA, Address, Data, connect


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("whoami")(whoami)


def whoami(address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Your name, role and tenant at the controller, and the tenant's quotas with their use."""
    from seal_cli.console import out

    with connect(address, data) as client:
        caller = client.whoami()
    out.print(f"{'name':<22} {caller.name}", markup=False)
    out.print(f"{'role':<22} {caller.role}", markup=False)
    out.print(f"{'tenant':<22} {caller.tenant or 'none'}", markup=False)
    if not caller.tenant:
        return
    for quota in type(caller.quotas).model_fields:
        limit, used = getattr(caller.quotas, quota), getattr(caller.used, quota)
        out.print(f"{quota:<22} {used:,} of {f'{limit:,}' if limit else 'any number'}", markup=False)
