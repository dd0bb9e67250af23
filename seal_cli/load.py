"""How busy the stack is, as two tables."""

from __future__ import annotations

from seal_cli.console import at_terminal, out, say
from seal_cli.tables import print_listing
from sealkit.resources import Load, RunLoad, ServiceReplica


def print_load(load: Load) -> None:
    """Prints the replicas of the model services, with their addresses if the caller may see them, and the queue; on
    stderr why a replica gets no calls."""
    columns = ("service", "address", "state", "base model", "jobs", "waiting", "tokens of the last step")
    print_listing(columns, map(_replica, load.replicas))
    for one in load.replicas:
        if one.error:
            say(one.error.message)
    if load.runs:
        if at_terminal():
            out.print()
        columns = ("run", "name", "state", "priority", "in progress", "queued", "not queued yet")
        print_listing(columns, map(_run, load.runs))


def _replica(one: ServiceReplica) -> tuple[str, ...]:
    busy = one.occupancy
    step = f"{busy.step_tokens} of {busy.step_tokens_limit}" if busy and busy.step_tokens is not None else ""
    jobs, waiting = (f"{busy.running} of {busy.capacity}", str(busy.waiting)) if busy else ("", "")
    model = one.base_model.name if one.base_model else ""
    return one.service, one.address, one.state.value.replace("_", " "), model, jobs, waiting, step


def _run(one: RunLoad) -> tuple[str, ...]:
    counts = map(str, (one.priority, one.running, one.queued, one.planned))
    return one.run, one.display_name, one.state.value, *counts
