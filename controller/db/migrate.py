"""Brings a database to the form that this version's tables have, by the migrations packaged beside this file."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from sealkit.errors import InvalidConfig

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x5EA1  # any number that nobody else in the database takes for its advisory lock


def migrate(connection: Connection) -> None:
    """Runs what has not been run yet, in the caller's transaction. Whoever starts at the same time waits. Raises
    InvalidConfig on a database that a newer version has brought to its own form: nothing of it is touched."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = on(connection)
    there = MigrationContext.configure(connection).get_current_revision()
    if there and there not in {known.revision for known in ScriptDirectory.from_config(config).walk_revisions()}:
        raise InvalidConfig(
            f"the record is in the form {there} of a newer version; start that version, or restore the backup that was "
            "made before the upgrade"
        )
    command.upgrade(config, "head")


def on(connection: Connection) -> Config:
    """What Alembic's commands take to run our migrations on a connection."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
