"""The database: SQLite (the default) or PostgreSQL, by URL.

A unit of work is a plain function whose first parameter is the Connection; `read` and `write` run it as one transaction
in a thread, off the event loop. SQLite allows one writer at a time, so it gets one thread, and other processes wait;
reads that take long have one of their own (`read_apart`). A write takes its lock at the start, because upgrading a lock
later can fail without waiting.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)

from controller.db.migrate import migrate
from controller.db.notifier import Notifier
from sealkit.database_url import parse_database_url
from sealkit.errors import FailedPrecondition, InvalidConfig, InvalidInput, SealError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_SECONDS = 30
_BUSY_POLL_SECONDS = 0.01
_POSTGRESQL_THREADS = 8
_READ_ONLY = "25006"
"""PostgreSQL's SQLSTATE read_only_sql_transaction."""
_SETTING = "SEAL_CONTROLLER_DATABASE_URL"
_WAYS = {
    sqlite3.SQLITE_CANTOPEN: "its folder must exist, and this user must be able to read and write it",
    sqlite3.SQLITE_READONLY: "this user must be able to write the file and its folder",
    sqlite3.SQLITE_FULL: "free some disk space",
    sqlite3.SQLITE_IOERR: "check the disk, and whether it is full",
    sqlite3.SQLITE_NOTADB: f"move that file away, or name another in {_SETTING}",
    sqlite3.SQLITE_CORRUPT: f"restore a copy, or name another file in {_SETTING}",
}
"""How to go on, by SQLite's primary result code."""


class Database:
    """The database. `notifier` notifies waiters in this process after each write."""

    def __init__(self, url: str) -> None:
        """Connects at the first use. Raises InvalidConfig on a URL of another kind."""
        self._url = _parsed(url)
        self._lite = self._url.get_backend_name() == "sqlite"
        self.folder = Path(self._url.database).expanduser().parent if self._lite and self._url.database else None
        """The folder of SQLite's file."""
        threads = 1 if self._lite else _POSTGRESQL_THREADS
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="record")
        self._apart = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record-apart")
        engine = _sqlite_engine(self._url) if self._lite else _postgresql_engine(self._url)
        # One snapshot for all statements of a read, as SQLite has by default.
        reading = engine if self._lite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._engine = {"read": reading, "write": engine}
        self.notifier = Notifier()

    async def start(self) -> None:
        """Migrates the tables; safe if several processes start at once.

        Raises Unavailable if the database does not answer.
        """
        await self.write(migrate)

    async def close(self) -> None:
        """Waits for running transactions and closes the connections."""
        for threads in (self._threads, self._apart):
            await asyncio.to_thread(threads.shutdown)
        self._engine["write"].dispose()

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, ...)` on one consistent snapshot. Raises Unavailable."""
        return await self._transact("read", self._threads, work, args, kwargs)

    async def read_apart(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `read`, for work that takes seconds: only other work of this kind waits for it. Raises Unavailable."""
        return await self._transact("read", self._apart, work, args, kwargs)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, ...)` in one transaction. Raises Unavailable."""
        result = await self._transact("write", self._threads, work, args, kwargs)
        self.notifier.notify()
        return result

    async def vacuum(self) -> None:
        """Removes what was deleted from the database's files: rewrites SQLite's file and truncates its log; PostgreSQL
        marks the space as free and overwrites it later. Other writers wait. Raises Unavailable."""
        engine = self._engine["write"]
        if not self._lite:  # PostgreSQL does not vacuum within a transaction
            engine = engine.execution_options(isolation_level="AUTOCOMMIT")

        def work() -> None:
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("VACUUM")
                    if self._lite and connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
                        raise Unavailable("another process is reading the database; its log cannot be truncated yet")
            except (OperationalError, InterfaceError) as error:
                raise _fault(self._url, error) from error

        await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _transact(
        self, access: str, threads: ThreadPoolExecutor, work: Callable[..., T], args: Any, kwargs: Any
    ) -> T:
        def transact() -> T:
            try:
                with self._engine[access].begin() as connection:
                    if self._lite:
                        connection.exec_driver_sql("BEGIN IMMEDIATE" if access == "write" else "BEGIN")
                    return work(connection, *args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                raise _fault(self._url, error) from error
            except InternalError as error:
                if getattr(error.orig, "sqlstate", "") != _READ_ONLY:
                    raise
                # After a fail-over the name may lead to the new primary, but only a new connection asks for it.
                self._engine["write"].dispose()
                raise _fault(self._url, error) from error
            except (DataError, OverflowError, UnicodeEncodeError) as error:
                raise InvalidInput(
                    "a text or number here cannot be stored in a database: NUL, half of a surrogate pair, or more than "
                    "64 bits; leave it out"
                ) from error
            except DatabaseError as error:
                if type(error) is DatabaseError:  # a file that is no database, or a damaged one
                    raise _fault(self._url, error) from error
                raise

        return await asyncio.get_running_loop().run_in_executor(threads, transact)


def storable(text: str) -> str:
    """A text without NUL, which not every database can store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def insert_new(connection: Connection, table: Table, *rows: dict[str, Any]) -> list[Any]:
    """Inserts the rows whose key does not exist yet; returns the first key column of the inserted ones, in no order."""
    if not rows:
        return []
    return list(connection.scalars(_insert_new(connection.dialect.name, table), list(rows)))


@cache
def _insert_new(dialect: str, table: Table) -> Insert:
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing().returning(*table.primary_key)


def _parsed(url: str) -> URL:
    parsed = parse_database_url(url, _SETTING)
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InvalidConfig(f"{_SETTING} must name a file: API and workers share it")
    return parsed


def _fault(url: URL, error: DBAPIError) -> SealError:
    """What the database said, and the way out."""
    shown, cause = url.render_as_string(hide_password=True), error.orig
    if isinstance(cause, sqlite3.Error):
        kind = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        way = _WAYS.get(kind, f"check the file, or set {_SETTING}")
        fault = FailedPrecondition if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) else Unavailable
        return fault(f"database {shown} cannot be used: {cause}; {way}")
    if isinstance(error, InternalError):
        return Unavailable(f"database {shown} answers and refuses writes: {cause}; it is a standby or set read-only")
    if "FATAL:" in str(cause):  # the server is there, and refuses this user, password or database
        return Unavailable(
            f"database {shown} refuses the connection: {cause}; set user, password and name in {_SETTING}"
        )
    return Unavailable(f"database {shown} does not answer: {cause}; start it, or set {_SETTING}")


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True, pool_size=_POSTGRESQL_THREADS)
    except (ImportError, NoSuchModuleError) as error:
        raise InvalidConfig(f"no driver for {url.drivername}: {error}; pip install 'seal-suite[controller]'") from error


def _sqlite_engine(url: URL) -> Engine:
    folder = Path(url.database or "").expanduser().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"{_SETTING}: the folder {folder} cannot be created ({error.strerror})") from error
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # `Database` begins transactions, not the driver
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")  # survives a crash of the process
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switches the file to a write-ahead log. The first process switches a new file, and while it migrates, SQLite
    refuses the others at once: the switch upgrades a read lock, so the busy timeout does not apply."""
    give_up = monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > give_up:
                raise
        sleep(_BUSY_POLL_SECONDS)
