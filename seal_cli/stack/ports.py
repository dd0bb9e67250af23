"""Ports on loopback."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from sealkit.errors import FailedPrecondition

LOOPBACK = "127.0.0.1"
CONTROLLER_PORT = 50050
GATEWAY_PORT = 8000


def controller_port(asked: int | None) -> int:
    """The controller's port: the requested one, or else the default one, or else any free one.

    Raises FailedPrecondition if the requested port is in use.
    """
    if asked is None:
        return preferred_port(CONTROLLER_PORT)
    if asked and not is_free(asked):
        raise FailedPrecondition(
            f"port {asked} on {LOOPBACK} is in use by another program; choose another with --port (0: any free one)"
        )
    return asked or free_ports(1)[0]


def preferred_port(port: int) -> int:
    """This port if it is free, else any free one."""
    return port if is_free(port) else free_ports(1)[0]


def is_free(port: int) -> bool:
    """Whether nothing listens on the port."""
    with socket.socket() as probe:
        # As servers set it, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
