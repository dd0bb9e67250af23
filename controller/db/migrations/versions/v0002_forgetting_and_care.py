"""Forgetting, usage and manifest of trials; scores and gate of policies; aliases; priorities, budgets, pauses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns and the aliases' table."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
        runs.add_column(sa.Column("share", sa.Float(), server_default="1", nullable=False))
        runs.add_column(sa.Column("budget", sa.JSON(), nullable=True))
        runs.add_column(sa.Column("active_seconds", sa.Float(), server_default="0", nullable=False))
        runs.add_column(sa.Column("spent_tokens", sa.BigInteger(), server_default="0", nullable=False))
        runs.add_column(sa.Column("spent_device_seconds", sa.Float(), server_default="0", nullable=False))
    with op.batch_alter_table("trials") as trials:
        trials.alter_column("editor", existing_type=sa.String(length=16), type_=sa.String(length=64))
        trials.add_column(sa.Column("retention", sa.JSON(), nullable=True))
        trials.add_column(sa.Column("divergence", sa.JSON(), nullable=True))
        trials.add_column(sa.Column("stopped_early", sa.Boolean(), server_default=sa.false(), nullable=False))
        trials.add_column(sa.Column("flip_rate", sa.Float(), server_default="0", nullable=False))
        trials.add_column(sa.Column("stage_usage", sa.JSON(), server_default="{}", nullable=False))
        trials.add_column(sa.Column("manifest", sa.JSON(), server_default="{}", nullable=False))
        trials.add_column(sa.Column("replay_of", sa.String(length=300), server_default="", nullable=False))
    replayed = sa.text("replay_of != ''")
    op.create_index("replays_by_state", "trials", ["state"], sqlite_where=replayed, postgresql_where=replayed)
    with op.batch_alter_table("policies") as policies:
        policies.add_column(sa.Column("retention", sa.JSON(), nullable=True))
        policies.add_column(sa.Column("divergence", sa.JSON(), nullable=True))
        policies.add_column(sa.Column("scores", sa.JSON(), server_default="{}", nullable=False))
        policies.add_column(sa.Column("gate", sa.String(length=16), server_default="unmeasured", nullable=False))
        policies.add_column(sa.Column("gate_reason", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "aliases",
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("restores", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("alias", "sequence"),
    )


def downgrade() -> None:
    """Drops them."""
    op.drop_table("aliases")
    with op.batch_alter_table("policies") as policies:
        for name in ("gate_reason", "gate", "scores", "divergence", "retention"):
            policies.drop_column(name)
    op.drop_index("replays_by_state", "trials")
    with op.batch_alter_table("trials") as trials:
        for name in (
            "replay_of",
            "manifest",
            "stage_usage",
            "flip_rate",
            "stopped_early",
            "divergence",
            "retention",
        ):
            trials.drop_column(name)
        trials.alter_column("editor", existing_type=sa.String(length=64), type_=sa.String(length=16))
    with op.batch_alter_table("runs") as runs:
        for name in ("spent_device_seconds", "spent_tokens", "active_seconds", "budget", "share", "priority"):
            runs.drop_column(name)
