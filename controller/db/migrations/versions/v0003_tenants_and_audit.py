"""Tenants of runs, aliases and requests; quotas and usage of tenants; the audit log; the trace of a run."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Existing rows belong to no tenant."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("tenant", sa.String(length=64), server_default="", nullable=False))
        runs.add_column(sa.Column("trace", sa.Text(), server_default="", nullable=False))
    op.create_index("runs_by_tenant", "runs", ["tenant", "create_time", "run_id"])
    _make_anew("aliases", _tenant(), *_alias(), key=("tenant", "alias", "sequence"))
    _make_anew("requests", _tenant(), *_request(sa.Text()), key=("tenant", "request_id"))
    op.create_table(
        "tenants",
        _tenant(),
        sa.Column("quotas", sa.JSON(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("device_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("caller", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        _tenant(),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=300), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("audit_by_tenant", "audit", ["tenant", "number"])
    op.create_index("audit_by_resource", "audit", ["resource", "number"])


def downgrade() -> None:
    """Drops them. Only aliases and requests of no tenant stay, because names of different tenants may be equal."""
    op.drop_table("audit")
    op.drop_table("tenants")
    for table in ("requests", "aliases"):
        op.execute(sa.text(f"DELETE FROM {table} WHERE tenant != ''"))
    _make_anew("requests", *_request(sa.String(length=64)), key=("request_id",))
    _make_anew("aliases", *_alias(), key=("alias", "sequence"))
    op.drop_index("runs_by_tenant", "runs")
    for column in ("trace", "tenant"):
        op.drop_column("runs", column)  # in place: SQLite cannot recreate a table that others reference


def _make_anew(table: str, *columns: sa.Column[Any], key: tuple[str, ...]) -> None:
    """Recreates a table with another key, because SQLite cannot change it in place; a new tenant column is empty."""
    had = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
    op.execute(sa.text(f"CREATE TABLE {table}_before AS SELECT * FROM {table}"))
    op.drop_table(table)
    op.create_table(table, *columns, sa.PrimaryKeyConstraint(*key))
    names = [column.name for column in columns]
    values = ", ".join(name if name in had else "''" for name in names)
    op.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}_before"))
    op.drop_table(f"{table}_before")


def _tenant() -> sa.Column[Any]:
    return sa.Column("tenant", sa.String(length=64), nullable=False)


def _alias() -> list[sa.Column[Any]]:
    return [
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("restores", sa.Integer(), nullable=True),
    ]


def _request(about: sa.String) -> list[sa.Column[Any]]:
    """`about`: type of the column that names the resource of a request."""
    return [
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("run_id", about, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    ]
