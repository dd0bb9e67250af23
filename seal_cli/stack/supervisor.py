"""Starts, watches and stops the embedded stack.

`up` is idempotent: services that run already are kept, missing ones are started, and it returns when all are ready. No
parent process stays behind; a later call finds the processes through the state file in the data folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from seal_cli.health import is_serving
from seal_cli.stack import process, valkey
from seal_cli.stack.layout import CONTROLLER, Layout
from seal_cli.stack.ports import is_free, port_of
from seal_cli.stack.services import GATEWAY, HEALTH_NAMES, START_ORDER, STOP_ORDER, Launch, plan
from sealkit.errors import FailedPrecondition, Unavailable
from sealkit.processes import Presence, ProcessStart, presence_of
from sealkit.stack_file import VALKEY, ServiceRecord, StackState

Say = Callable[[str], None]

_POLL = 0.1
_STOP_GRACE = 25.0
"""Seconds; slightly more than the services' own drain time."""
_LOG_LINES = 15


@dataclass(frozen=True)
class ServiceStatus:
    """Current state of one service: `state` is `ready`, `not ready`, `dead`, or `unknown` if it cannot be told from
    here whether the process still runs."""

    record: ServiceRecord
    state: str


@dataclass(frozen=True)
class Started:
    """The stack after `up`; `fresh` is False if all services ran already."""

    state: StackState
    fresh: bool


def up(layout: Layout, model: str, *, port: int | None, timeout: float, say: Say) -> Started:
    """Starts the whole stack. Returns when every service is ready.

    Raises FailedPrecondition (a port in use, another model runs here, a folder that cannot be written, a process that
    may or may not have ended) or Unavailable (a service died or did not become ready; its last log lines are in the
    message). After an error or an interruption, everything that was started is stopped.
    """
    layout.create()
    with layout.locked(lambda: say("another `seal up` or `seal down` runs here; waiting for it")):
        known = layout.read_state()
        running = _running(layout, known) if known else []
        if known and running and known.model != model:
            raise FailedPrecondition(
                f"a stack with the model {known.model} runs in {layout.data}; stop it with `seal down` first"
            )
        state = StackState(model=model, services=known.services if known else ())
        _check_port(known, port, running)
        if not running:
            # Nothing depends on the old addresses.
            state = StackState(model=model)
            _await_end_of_unlisted(layout, say)
        if len(running) == len(START_ORDER) and all(_is_ready(layout, record) for record in running):
            return Started(state, fresh=False)
        return Started(_converge(layout, state, plan(layout, state, port), running, timeout, say), fresh=True)


def _check_port(known: StackState | None, port: int | None, running: Sequence[ServiceRecord]) -> None:
    """A running stack keeps its addresses. Raises FailedPrecondition if another port was requested."""
    controller = known.find(CONTROLLER) if known and running else None
    if port and controller and port_of(controller.address) != port:
        raise FailedPrecondition(
            f"the controller of the stack that runs here is on {controller.address}, not on port {port}; "
            "to move it, stop the stack with `seal down` first"
        )


def down(layout: Layout, say: Say) -> bool:
    """Stops the services that run; True if one did. Journaled data is kept, and the next `up` continues from it.

    Raises FailedPrecondition if a process is not known to have ended; it stays in the state file.
    """
    if not layout.exists():
        return False
    with layout.locked(lambda: say("another `seal up` or `seal down` runs here; waiting for it")):
        state = layout.read_state()
        if state is None:
            return False
        ran = any(map(process.is_running, state.services))
        if left := _stop_all(layout):
            raise _undecided(layout, left)
        return ran


def status(layout: Layout) -> list[ServiceStatus]:
    """Current state of every service that was started here; empty if none was."""
    state = layout.read_state()
    return [ServiceStatus(record, _state_of(layout, record)) for record in (state.services if state else ())]


def hold(layout: Layout, say: Say) -> None:
    """Waits until the stack is stopped by another command. Stops the rest and raises Unavailable if a service dies."""
    while (state := layout.read_state()) is not None:
        dead = next(filter(process.has_ended, state.services), None)
        if dead is None:
            time.sleep(10 * _POLL)
            continue
        # `seal down` stops the processes before it removes the state file; its lock distinguishes it from a crash.
        with layout.locked(lambda: None):
            if layout.read_state() is None:
                return
        down(layout, say)
        raise _died(layout, dead.name)


def _converge(
    layout: Layout,
    state: StackState,
    launches: Sequence[Launch],
    running: Sequence[ServiceRecord],
    timeout: float,
    say: Say,
) -> StackState:
    kept = {record.name for record in running}
    started = time.monotonic()
    with _stopping_on_failure(layout):
        for launch in launches:
            if launch.name not in kept:
                state = _start(layout, state, launch)
        waiting = [record for name in START_ORDER if (record := state.find(name))]
        deadline = started + timeout
        while waiting:
            for record in list(waiting):
                if _is_ready(layout, record):
                    waiting.remove(record)
                    say(f"{record.name:<10} ready on {record.address} ({time.monotonic() - started:.1f} s)")
                elif process.has_ended(record):
                    raise _died(layout, record.name)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(record.name for record in waiting)
                raise Unavailable(
                    f"{names} not ready within {timeout:.0f} s; see {layout.logs}, or wait longer with --timeout"
                )
            time.sleep(_POLL)
    return state


def _start(layout: Layout, state: StackState, launch: Launch) -> StackState:
    if launch.name != VALKEY and not is_free(port_of(launch.address)):
        raise FailedPrecondition(
            f"{launch.name} cannot come back on {launch.address}: another program took the port; "
            "run `seal down`, then `seal up`"
        )

    def record(pid: int, start: ProcessStart) -> None:
        nonlocal state
        started = ServiceRecord(
            name=launch.name,
            pid=pid,
            start=start,
            started=time.time(),
            address=launch.address,
            metrics=launch.metrics,
        )
        state = state.having(started)
        layout.write_state(state)

    process.spawn(launch.command, env=launch.env, log=layout.log(launch.name), cwd=layout.data, record=record)
    return state


@contextmanager
def _stopping_on_failure(layout: Layout) -> Iterator[None]:
    """On any exception, Ctrl-C included, stops the stack and re-raises."""
    try:
        yield
    except BaseException:
        _stop_all(layout)
        raise


def _running(layout: Layout, state: StackState) -> list[ServiceRecord]:
    """The services that run. Raises FailedPrecondition if that cannot be told of one: a second one beside it would
    write to the same data."""
    if unknown := [record for record in state.services if presence_of(record) is Presence.UNKNOWN]:
        raise _undecided(layout, unknown)
    return list(filter(process.is_running, state.services))


def _stop_all(layout: Layout) -> list[ServiceRecord]:
    """Stops what the state file lists, callers before the services they call, and forgets what has ended. Returns what
    is not known to have ended."""
    state = layout.read_state()
    if state is None:
        return []
    left: list[ServiceRecord] = []
    for names in STOP_ORDER:
        left += process.stop([record for record in state.services if record.name in names], _STOP_GRACE)
    if left:
        layout.write_state(StackState(model=state.model, services=tuple(left)))
    else:
        layout.state_file.unlink(missing_ok=True)
    return left


def _undecided(layout: Layout, records: Sequence[ServiceRecord]) -> FailedPrecondition:
    shown = ", ".join(f"{record.name} (pid {record.pid} on {record.start.host})" for record in records)
    return FailedPrecondition(
        f"it cannot be told from here whether {shown} has ended. Run `seal down` there, or end it with `kill -9`; if "
        f"it is gone for certain, remove {layout.state_file}"
    )


def _await_end_of_unlisted(layout: Layout, say: Say) -> None:
    """Waits for a Valkey that no state file lists: the services of a stack whose state file was removed end by
    themselves and end it too. Raises FailedPrecondition if it stays: a second server would write to its journal."""
    deadline = time.monotonic() + _STOP_GRACE
    if valkey.pid_of(layout.socket) is not None:
        say("waiting for the end of a stack whose state file was removed")
    while (pid := valkey.pid_of(layout.socket)) is not None:
        if time.monotonic() > deadline:
            raise FailedPrecondition(
                f"a Valkey (pid {pid}) that {layout.state_file} does not list answers on {layout.socket}; end it with "
                f"`kill {pid}`, then run `seal up` again"
            )
        time.sleep(_POLL)


def _is_ready(layout: Layout, record: ServiceRecord) -> bool:
    if record.name == VALKEY:
        return valkey.answers(layout.socket)
    if record.name == GATEWAY:
        return is_serving(f"http://{record.address}")
    return is_serving(record.address, HEALTH_NAMES[record.name])


def _state_of(layout: Layout, record: ServiceRecord) -> str:
    presence = presence_of(record)
    if presence is Presence.RUNNING:
        return "ready" if _is_ready(layout, record) else "not ready"
    return "dead" if presence is Presence.ENDED else "unknown"


def _died(layout: Layout, name: str) -> Unavailable:
    log = layout.log(name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    shown = "".join(f"\n  {line}" for line in lines) or "\n  (it wrote nothing)"
    return Unavailable(f"{name} died; everything else was stopped. The end of {log}:{shown}")
