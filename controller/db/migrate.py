"""Migrates a database to this version's schema, with the migrations in this package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from sealkit.errors import InvalidConfig

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x5EA1  # an arbitrary key of a PostgreSQL advisory lock


def migrate(connection: Connection) -> None:
    """Runs the pending migrations in the caller's transaction; concurrent callers wait. Raises InvalidConfig, without
    any change, if a newer version has migrated the database."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = on(connection)
    there = MigrationContext.configure(connection).get_current_revision()
    if there and there not in {known.revision for known in ScriptDirectory.from_config(config).walk_revisions()}:
        raise InvalidConfig(
            f"the database has the schema {there} of a newer version; start that version, or restore the backup from "
            "before the upgrade"
        )
    command.upgrade(config, "head")


def on(connection: Connection) -> Config:
    """The Alembic config for our migrations on a connection."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
