"""Cache of paid verdicts in SQL: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Column, Connection, DateTime, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from sealkit.database_url import parse_database_url
from sealkit.errors import InvalidConfig, Unavailable
from sealkit.types import Outcome

T = TypeVar("T")

_BUSY_SECONDS = 30
_VERDICTS = Table(
    "judge_verdicts",
    MetaData(),
    Column("key", String(64), primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("judge", String(400), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
)


class VerdictCache:
    """Verdicts by the digest of all that determines them. Several processes may share one cache."""

    def __init__(self, url: str) -> None:
        """Connects at the first use. Raises InvalidConfig on an unsupported URL."""
        parsed = parse_database_url(url, "the judge's cache URL")
        try:
            # One thread for all queries, so that an in-memory database has one connection, and SQLite one writer.
            lite = parsed.get_backend_name() == "sqlite"
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}} if lite else {}
            if lite and parsed.database:
                options = {"connect_args": {"timeout": _BUSY_SECONDS}}
                Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(parsed, **options)
        except (NoSuchModuleError, OSError, ImportError) as error:
            raise InvalidConfig(
                f"the judge's cache {parsed.render_as_string(hide_password=True)} cannot be used: {error}"
            ) from error
        self._name = parsed.render_as_string(hide_password=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="verdicts")
        self._ready = False

    async def get(self, key: str) -> Outcome | None:
        """The verdict cached under `key`. Raises Unavailable."""
        found = await self._transact(
            lambda connection: connection.scalar(select(_VERDICTS.c.outcome).where(_VERDICTS.c.key == key))
        )
        return Outcome(found) if found else None

    async def put(self, key: str, outcome: Outcome, judge: str) -> None:
        """Stores a verdict, unless there is one. Raises Unavailable."""
        row = {"key": key, "outcome": outcome.value, "judge": judge, "create_time": datetime.now(UTC)}

        def keep(connection: Connection) -> None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(_VERDICTS).values(row))
            except IntegrityError:
                pass  # another process was first

        await self._transact(keep)

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()

    async def _transact(self, work: Callable[[Connection], T]) -> T:
        def transact() -> T:
            try:
                if not self._ready:
                    _VERDICTS.metadata.create_all(self._engine)
                    self._ready = True
                with self._engine.begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                said = getattr(error, "orig", None) or type(error).__name__
                raise Unavailable(f"the judge's cache {self._name} cannot be used: {said}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)
