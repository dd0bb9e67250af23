"""`seal`: the application with all commands; turns errors into one message and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seal_cli.commands import (
    adapt,
    adapters,
    alias,
    arc,
    ask,
    audit,
    certs,
    doctor,
    health,
    judge,
    learn,
    policies,
    report,
    run,
    runs,
    services,
    stack,
    trials,
    whoami,
)
from seal_cli.examples import add_examples
from seal_cli.exit_codes import ExitCode, code_of
from seal_cli.interrupts import interruptible
from seal_cli.options import TENANT
from sealkit.errors import FailedPrecondition, SealError


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
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of a pipe wants no more; click ends the command
            from seal_cli.console import fail

            raise typer.Exit(fail(FailedPrecondition(_refused(error)))) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(code_of(interrupt)) from interrupt


def _refused(error: OSError) -> str:
    """What the operating system refuses: a file that cannot be read or written, a full disk. A stream has no name."""
    return f"{error.filename or 'the output cannot be written'}: {error.strerror or error}"


app = typer.Typer(
    name="seal",
    cls=SealGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stack.register(app)
run.register(app)
adapt.register(app)
learn.register(app)
ask.register(app)
app.add_typer(runs.app, name="runs")
app.add_typer(trials.app, name="trials")
app.add_typer(policies.app, name="policies")
app.add_typer(alias.app, name="alias")
app.add_typer(adapters.app, name="adapters")
app.add_typer(arc.app, name="arc")
app.add_typer(audit.app, name="audit")
app.add_typer(certs.app, name="certs")
app.add_typer(judge.app, name="judge")
report.register(app)
health.register(app)
doctor.register(app)
services.register(app)
whoami.register(app)
add_examples(app)


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
    from seal_cli.console import say
    from sealkit.variables import misspelt

    TENANT.set(tenant)
    for name, nearest in misspelt(os.environ):
        say(f"warning: {name} is not a setting; is {nearest} meant?")


def main() -> None:
    """The console script: sets up the process's streams and logs, then runs the command."""
    from seal_cli.console import write_any_encoding
    from sealkit.observability.logs import configure_logging

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its errors come as messages of ours
    write_any_encoding()
    configure_logging("cli", "WARNING", "console")
    code: int | str | None = 0
    try:
        _run()
    except SystemExit as end:
        code = end.code
    except OSError as error:  # while help or an error message was written
        code = _print_error(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = code or _print_error(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would flush again at its end
    sys.exit(code)


def _run() -> None:
    if not os.environ.get("SEAL_TRACES_ENDPOINT"):
        app()
        return
    from seal_cli.tracing import traced

    with traced():
        app()


def _print_error(error: OSError) -> int:
    from seal_cli.console import say

    with suppress(OSError):  # stderr may be the stream that cannot be written
        say(f"error {_refused(error)}")
    return ExitCode.FAILED
