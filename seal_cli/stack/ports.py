"""Ports on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from sealkit.errors import FailedPrecondition

LOOPBACK = "127.0.0.1"
CONTROLLER_PORT = 50050
GATEWAY_PORT = 8000


class Ports:
    """Picks ports that are free, and none twice: nothing listens yet on one that was picked, so it still looks free.
    `taken`: ports that are not to be picked."""

    def __init__(self, taken: Iterable[int] = ()) -> None:
        self._taken = set(taken)

    def any(self) -> int:
        """A port that the system chooses."""
        while True:
            with socket.socket() as probe:
                probe.bind((LOOPBACK, 0))
                port = int(probe.getsockname()[1])
            if port not in self._taken:
                return self._take(port)

    def preferred(self, port: int) -> int:
        """This port if it is free, else any free one."""
        return self._take(port) if port not in self._taken and is_free(port) else self.any()

    def controller(self, asked: int | None) -> int:
        """The controller's port: the requested one (0: any), or else the default one, or else any free one.

        Raises FailedPrecondition if the requested port is in use.
        """
        if asked is None:
            return self.preferred(CONTROLLER_PORT)
        if asked and (asked in self._taken or not is_free(asked)):
            raise FailedPrecondition(
                f"port {asked} on {LOOPBACK} is in use; choose another with --port (0: any free one)"
            )
        return self._take(asked) if asked else self.any()

    def _take(self, port: int) -> int:
        self._taken.add(port)
        return port


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


def port_of(address: str) -> int:
    """The port of `host:port`."""
    return int(address.rpartition(":")[2])
