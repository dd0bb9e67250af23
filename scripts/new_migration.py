"""Writes a migration to `controller/db/migrations/versions`, from the template, with the differences between the newest
revision and `controller/db/tables.py`: `python -m scripts.new_migration "teacher answers"`."""

from __future__ import annotations

import sys

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from controller.db.migrate import migrate, on


def main() -> None:
    """Prints the path of the file."""
    (message,) = sys.argv[1:] or [""]
    if not message:
        raise SystemExit(__doc__)
    with create_engine("sqlite://").begin() as connection:
        migrate(connection)
        config = on(connection)
        config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
        newest = ScriptDirectory.from_config(config).get_current_head() or "0"
        command.revision(config, message, autogenerate=True, rev_id=f"{int(newest) + 1:04}")


if __name__ == "__main__":
    main()
