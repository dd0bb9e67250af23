"""`seal up`, `seal down`, `seal status`, `seal open`, `seal fetch`: the embedded stack and its default model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, AsJson, Data
from sealkit.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from sealkit.stack_file import ServiceRecord


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("open")(open_page)
    app.command("fetch")(fetch)


def up(
    model: Annotated[
        str,
        typer.Option(envvar="SEAL_MODEL", help="Folder, .gguf file or hub id. Default: SmolLM2-135M-Instruct."),
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the controller. Default: 50050, or a free one if that is in use."),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C stops all services.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until all is ready.")] = 300,
    as_json: AsJson = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Start the stack on this machine: Valkey, generator, trainer, evaluator, controller, and the HTTP service.

    Returns when all services are ready, and leaves them running. Services that run already are kept.
    """
    from seal_cli.console import say, show, show_json

    with _needs_embedded():
        from seal_cli.stack.layout import CONTROLLER, Layout
        from seal_cli.stack.model import resolve_model
        from seal_cli.stack.services import GATEWAY
        from seal_cli.stack.supervisor import down as stop
        from seal_cli.stack.supervisor import hold
        from seal_cli.stack.supervisor import up as start

    layout = Layout.at(data)
    resolved = resolve_model(model, layout, say)
    started = start(layout, resolved, port=port, timeout=timeout, say=say)
    controller, gateway = started.state.find(CONTROLLER), started.state.find(GATEWAY)
    address, http = controller.address if controller else "", f"http://{gateway.address}/v1" if gateway else ""
    page = _page_of(gateway) if gateway else ""
    say("the stack is up" if started.fresh else "the stack was up already")
    if as_json:
        found = {"controller": address, "http": http, "page": page, "model": resolved, "logs": layout.logs}
        show_json(found | {"started": started.fresh})
    else:
        show(f"controller  {address}")
        show(f"http        {http}")
        show(f"page        {page}")
        show(f"model       {resolved}")
        show(f"logs        {layout.logs}")
    if foreground:
        say("Ctrl-C stops it")
        try:
            hold(layout, say)
        except KeyboardInterrupt:
            stop(layout, say)
            raise


def down(as_json: AsJson = False, data: Data = DEFAULT_DATA) -> None:
    """Stop the stack. Its data is kept, and the next `seal up` continues from there."""
    from seal_cli.console import say, show_json

    with _needs_embedded():
        from seal_cli.stack.layout import Layout
        from seal_cli.stack.supervisor import down as stop

    stopped = stop(Layout.at(data), say)
    say("the stack is stopped" if stopped else "no stack was running")
    if as_json:
        show_json({"stopped": stopped})


def status(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; only set the exit code.")] = False,
    as_json: AsJson = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Current state of each service of the stack; exit code 0 if all are ready, else 1."""
    from datetime import datetime

    from seal_cli.console import moment, say, show_json
    from seal_cli.tables import print_listing

    with _needs_embedded():
        from seal_cli.stack.layout import Layout
        from seal_cli.stack.supervisor import status as look

    layout = Layout.at(data)
    found = look(layout)
    ready = bool(found) and all(service.state == "ready" for service in found)
    if as_json:
        show_json([{"state": service.state, **service.record.model_dump()} for service in found])
    elif not quiet and not found:
        say(f"no stack runs in {layout.data}; start one with `seal up`")
    elif not quiet:
        rows = [
            (
                service.record.name,
                service.state if service.state != "dead" else f"dead; see {layout.log(service.record.name)}",
                str(service.record.pid),
                service.record.address,
                service.record.metrics,
                moment(datetime.fromtimestamp(service.record.started).astimezone()),
            )
            for service in found
        ]
        print_listing(("service", "state", "pid", "address", "metrics", "since"), rows)
    if not ready:
        raise typer.Exit(1)


def open_page(as_json: AsJson = False, data: Data = DEFAULT_DATA) -> None:
    """Open the live page of the stack in the browser, and print its address. With --json only print it."""
    import webbrowser

    from seal_cli.console import say, show, show_json

    with _needs_embedded():
        from seal_cli.stack.layout import Layout
        from seal_cli.stack.process import has_ended
        from seal_cli.stack.services import GATEWAY

    layout = Layout.at(data)
    state = layout.read_state()
    gateway = state.find(GATEWAY) if state else None
    if gateway is None or has_ended(gateway):
        raise Unavailable(f"no HTTP service runs in {layout.data}; start the stack with `seal up`")
    address = _page_of(gateway)
    if as_json:
        show_json({"page": address})
        return
    show(address)
    if not webbrowser.open(address):
        say("no browser could be started; open the address yourself")


def _page_of(gateway: ServiceRecord) -> str:
    """The address of the live page."""
    return f"http://{gateway.address}/live/"


def fetch(as_json: AsJson = False, data: Data = DEFAULT_DATA) -> None:
    """Download the default model, SmolLM2-135M-Instruct, so that `seal up` needs no network."""
    from seal_cli.console import say, show, show_json

    with _needs_embedded():
        from seal_cli.stack.layout import Layout
        from seal_cli.stack.model import fetch_default_model

    model = fetch_default_model(Layout.at(data), say)
    if as_json:
        show_json({"model": model})
    else:
        show(str(model))


@contextmanager
def _needs_embedded() -> Iterator[None]:
    """Turns an ImportError into an error that names the missing extra."""
    try:
        yield
    except ImportError as error:
        raise FailedPrecondition(
            f"the embedded stack needs {error.name}: pip install 'seal-suite[embedded]'"
        ) from error
