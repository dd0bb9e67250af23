"""`seal`: the application with all commands; turns errors into one message and an exit code."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seal_cli.commands import (
    adapt,
    adapters,
    alias,
    arc,
    audit,
    certs,
    doctor,
    health,
    judge,
    policies,
    run,
    runs,
    stack,
    trials,
    whoami,
)
from seal_cli.exit_codes import code_of
from seal_cli.interrupts import interruptible
from seal_cli.options import TENANT
from sealkit.errors import SealError


class SealGroup(TyperGroup):
    """Typed errors give a message and the exit code of `seal_cli.exit_codes`, as interruptions do; never a
    traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with interruptible():
                return super().invoke(ctx)
        except SealError as error:
            from seal_cli.console import fail

            raise typer.Exit(fail(error)) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(code_of(interrupt)) from interrupt


app = typer.Typer(
    name="seal",
    cls=SealGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: seal up, then seal run configs/demo.toml",
)
stack.register(app)
run.register(app)
adapt.register(app)
app.add_typer(runs.app, name="runs")
app.add_typer(trials.app, name="trials")
app.add_typer(policies.app, name="policies")
app.add_typer(alias.app, name="alias")
app.add_typer(adapters.app, name="adapters")
app.add_typer(arc.app, name="arc")
app.add_typer(audit.app, name="audit")
app.add_typer(certs.app, name="certs")
app.add_typer(judge.app, name="judge")
health.register(app)
doctor.register(app)
whoami.register(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("seal-suite"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    tenant: Annotated[
        str, typer.Option(envvar="SEAL_TENANT", help="For admins: the tenant to act for, in every command.")
    ] = "",
) -> None:
    """SEAL as a service suite: a language model writes its own training data, trains on it, and learns from what
    helped."""
    TENANT.set(tenant)


def main() -> None:
    """The console script."""
    if not os.environ.get("SEAL_TRACES_ENDPOINT"):
        app()
        return
    from seal_cli.tracing import traced

    with traced():
        app()
