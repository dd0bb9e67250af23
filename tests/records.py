"""Empty databases without running the migrations for each: one file is migrated and copied."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine

from controller.db.database import Database
from controller.db.migrate import migrate


def new_record(folder: Path) -> Database:
    """A new SQLite database in `folder`, empty, with the tables of this version."""
    path = folder / "record.db"
    path.write_bytes(_empty())
    return Database(f"sqlite:///{path}")


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            migrate(connection)
        engine.dispose()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # as `Database` does; persistent in the file
        return path.read_bytes()
