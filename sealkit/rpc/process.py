"""How every process of the suite runs, whatever it serves: settings, logs, traces, metrics, the stop signal, exit
codes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import prometheus_client
import structlog
from pydantic import ValidationError

from sealkit.errors import SealError, Unavailable
from sealkit.observability.logs import configure_logging
from sealkit.observability.start import TracingSettings, start_tracing
from sealkit.rpc.settings import ProcessSettings, explain
from sealkit.stack_file import end_valkey, unlisted
from sealkit.variables import misspelt

log = structlog.get_logger(__name__)


class ServiceDied(Exception):
    """A service's background work ended unexpectedly: it can no longer serve."""


class Program(NamedTuple):
    """A process: its name in logs and traces, its settings, and what it does until it is stopped."""

    name: str
    settings: ProcessSettings
    serve: Callable[[], Coroutine[Any, Any, None]]


def run_program(prepare: Callable[[], Program]) -> int:
    """A whole process; returns the exit code: 0 after a clean stop, 1 if it could not start or its background work died
    (with one line on stderr), 2 on bad settings."""
    try:
        program = prepare()
        traces = TracingSettings()
    except ValidationError as error:
        sys.stderr.write(f"bad settings: {explain(error)}\n")
        return 2
    except SealError as error:
        sys.stderr.write(f"cannot start: {error.message}\n")
        return 1
    name = program.name
    configure_logging(name, program.settings.log_level, program.settings.log_format)
    for variable, nearest in misspelt(os.environ):
        log.warning("not a setting", variable=variable, nearest=nearest)
    try:
        stop_tracing = start_tracing(name, traces)
        try:
            asyncio.run(program.serve())
        finally:
            stop_tracing()
    except SealError as error:
        sys.stderr.write(f"{name} cannot start: {error.message}\n")
        return 1
    except ServiceDied as error:
        sys.stderr.write(f"{name} died: {error}\n")
        return 1
    return 0


@contextmanager
def stop_signal(stack_file: str) -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, and the end of the stack with this state file, if any. A second signal ends
    the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, stop)
    watching = loop.create_task(_stop_with_stack(stack_file, stop))
    try:
        yield stop
    finally:
        watching.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def ended_before(stop: asyncio.Event, task: asyncio.Future[None]) -> bool:
    """Whether the task ends before the stop signal; otherwise it is cancelled then."""
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


def _on_signal(number: signal.Signals, stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(128 + number)
    log.info("stopping", signal=number.name)
    stop.set()


async def _stop_with_stack(file: str, stop: asyncio.Event) -> None:
    if not file:
        return
    last = await unlisted(Path(file))
    log.error("stopping: the stack's state file no longer lists this process", file=file)
    stop.set()
    end_valkey(last)


@contextmanager
def metrics_served(address: str) -> Iterator[None]:
    """The Prometheus endpoint is open while the block runs; without an address there is none. Raises Unavailable."""
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = prometheus_client.start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise Unavailable(
            f"cannot serve metrics on {address}: {error.strerror}. Stop the program on that port, or change the address"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
