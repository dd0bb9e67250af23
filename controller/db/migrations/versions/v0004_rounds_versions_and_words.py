"""New columns (the version of a policy and the number of its round; a teacher's answers; the model's reasoning; a run's
anchors and the base model's answers; the alias that a run learns on, and generated exams), the table of documents, and
new names of columns and stored values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CONFIG_KEYS = {
    ("evaluation", "race_confidence"): ("evaluation", "early_stopping_confidence"),
    ("evaluation", "race_wave"): ("evaluation", "early_stopping_interval"),
}
_NEW_KEYS = (
    ("dataset", "anchors_path"),
    *((section, "chat_template_kwargs") for section in ("editor", "evaluation")),
    ("adapt", "forget"),
    *(("inner_loop", key) for key in ("objective", "start_from", "teaching", "distillation", "anchors")),
)
"""Config keys that the version before does not have."""
_NEW_SECTIONS = ("documents", "exam")
_SAMPLED = ("teacher_answers", "reasoning", "teacher_reasoning")
"""Texts of a trial that the version before does not have."""
_TRIAL_FIELDS = {"flip_rate": "batch_variant_rate", "replay_of": "rerun_of"}
_CHUNK = 500


def upgrade() -> None:
    """Renames keep the meaning of existing values."""
    op.add_column("policies", sa.Column("version", sa.Integer(), server_default="0", nullable=False))
    op.add_column("policies", sa.Column("round_index", sa.Integer(), nullable=True))
    policies = sa.table(
        "policies", sa.column("name"), sa.column("round"), sa.column("version"), sa.column("round_index")
    )
    bind = op.get_bind()
    for row in bind.execute(sa.select(policies.c.name, policies.c.round)).all():
        index = int(row.round.rpartition("/")[2]) if row.round else None
        values = {"version": int(row.name.rpartition("-")[2]), "round_index": index}
        bind.execute(sa.update(policies).where(policies.c.name == row.name).values(**values))
    op.drop_column("policies", "round")
    _rename("policies", "round_index", "round")

    op.drop_index("replays_by_state", "trials")
    _rename("trials", "flip_rate", "batch_variant_rate")
    _rename("trials", "replay_of", "rerun_of")
    where = sa.text("rerun_of != ''")
    op.create_index("reruns_by_state", "trials", ["state"], sqlite_where=where, postgresql_where=where)
    op.execute(sa.text("UPDATE trials SET phase = 'rerun' WHERE phase = 'replay'"))
    op.add_column("trials", sa.Column("teacher_answers", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("reasoning", sa.Text(), server_default="", nullable=False))
    op.add_column("trials", sa.Column("teacher_reasoning", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("runs", sa.Column("anchors", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("runs", sa.Column("base_answers", sa.JSON(), nullable=True))
    _add_documents()
    _rewrite("trials", "name", "manifest", _new_manifest)
    _rewrite("runs", "run_id", "config", _new_config)
    _rewrite_events(_new_event)


def downgrade() -> None:
    """Restores the old names and drops what the version before cannot store."""
    _rewrite_events(_old_event)
    _rewrite("runs", "run_id", "config", _old_config)
    _rewrite("trials", "name", "manifest", _old_manifest)
    _drop_documents()
    op.drop_column("runs", "base_answers")
    op.drop_column("runs", "anchors")
    for column in _SAMPLED:
        op.drop_column("trials", column)
    op.execute(sa.text("UPDATE trials SET phase = 'replay' WHERE phase = 'rerun'"))
    op.drop_index("reruns_by_state", "trials")
    _rename("trials", "rerun_of", "replay_of")
    _rename("trials", "batch_variant_rate", "flip_rate")
    where = sa.text("replay_of != ''")
    op.create_index("replays_by_state", "trials", ["state"], sqlite_where=where, postgresql_where=where)

    _rename("policies", "round", "round_index")
    op.add_column("policies", sa.Column("round", sa.String(length=128), server_default="", nullable=False))
    named = "'runs/' || run_id || '/rounds/' || round_index"
    op.execute(sa.text(f"UPDATE policies SET round = {named} WHERE round_index IS NOT NULL"))
    op.drop_column("policies", "round_index")
    op.drop_column("policies", "version")


def _add_documents() -> None:
    op.add_column("runs", sa.Column("alias", sa.String(length=64), server_default="", nullable=False))
    op.add_column("runs", sa.Column("turn", sa.Integer(), server_default="0", nullable=False))
    op.create_index("runs_by_alias", "runs", ["tenant", "alias", "turn"])
    op.add_column("contexts", sa.Column("generated", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("contexts", sa.Column("document", sa.Integer(), nullable=True))
    op.add_column("contexts", sa.Column("exam", sa.JSON(), nullable=True))
    op.add_column("rounds", sa.Column("start_time", sa.DateTime(timezone=True), nullable=True))
    op.add_column("rounds", sa.Column("end_time", sa.DateTime(timezone=True), nullable=True))
    op.add_column("trials", sa.Column("generated_exam", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("policies", sa.Column("verdicts", sa.JSON(), server_default="[]", nullable=False))
    op.create_table(
        "documents",
        sa.Column("run_id", sa.String(length=64), sa.ForeignKey("runs.run_id"), primary_key=True, nullable=False),
        sa.Column("position", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("text_digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("notices", sa.JSON(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("replaces", sa.String(length=64), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("accuracy_before", sa.Float(), nullable=True),
        sa.Column("accuracy_after", sa.Float(), nullable=True),
    )
    op.create_index("documents_by_round", "documents", ["run_id", "round"])


def _drop_documents() -> None:
    op.drop_index("documents_by_round", "documents")
    op.drop_table("documents")
    op.drop_column("policies", "verdicts")
    op.drop_column("trials", "generated_exam")
    for column in ("start_time", "end_time"):
        op.drop_column("rounds", column)
    for column in ("generated", "document", "exam"):
        op.drop_column("contexts", column)
    op.drop_index("runs_by_alias", "runs")
    for column in ("alias", "turn"):
        op.drop_column("runs", column)


def _rename(table: str, old: str, new: str) -> None:
    op.execute(sa.text(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}"))  # in place, on SQLite too


def _rewrite(table: str, key: str, column: str, change: Callable[[dict[str, Any]], bool]) -> None:
    """Applies `change` to the JSON objects of a column; `change` returns whether it changed one."""
    rows = sa.table(table, sa.column(key), sa.column(column, sa.JSON()))
    bind = op.get_bind()
    keys = bind.scalars(sa.select(rows.c[key]).order_by(rows.c[key])).all()
    for start in range(0, len(keys), _CHUNK):
        some = rows.c[key].in_(keys[start : start + _CHUNK])
        for name, stored in bind.execute(sa.select(rows.c[key], rows.c[column]).where(some)).all():
            value = json.loads(stored) if isinstance(stored, str) else stored
            if value and change(value):
                bind.execute(sa.update(rows).where(rows.c[key] == name).values({column: value}))


def _rewrite_events(change: Callable[[dict[str, Any]], None]) -> None:
    """Applies `change` to the bodies of the events that hold a trial or a policy."""
    events = sa.table(
        "events", sa.column("run_id"), sa.column("sequence"), sa.column("kind"), sa.column("body", sa.JSON())
    )
    bind = op.get_bind()
    for run_id in bind.scalars(sa.select(events.c.run_id).distinct()).all():
        of_run = events.c.run_id == run_id, events.c.kind.in_(("TrialFinished", "PolicyTrained"))
        for sequence, body in bind.execute(sa.select(events.c.sequence, events.c.body).where(*of_run)).all():
            change(body)
            here = events.c.run_id == run_id, events.c.sequence == sequence
            bind.execute(sa.update(events).where(*here).values(body=body))


def _new_event(body: dict[str, Any]) -> None:
    if trial := body.get("trial"):
        trial["round"] = int(trial["name"].split("/")[3])
        for old, new in _TRIAL_FIELDS.items():
            if old in trial:
                trial[new] = trial.pop(old)
    if policy := body.get("policy"):
        run_id, _, version = policy["name"].removeprefix("policies/").rpartition("-")
        index = policy.get("round")
        policy |= {"run": f"runs/{run_id}", "version": int(version)}
        policy["round"] = int(index.rpartition("/")[2]) if index else None


def _old_event(body: dict[str, Any]) -> None:
    if trial := body.get("trial"):
        for new in ("round", "generated_exam", *_SAMPLED):
            trial.pop(new, None)
        for verdict in trial.get("verdicts", ()):
            verdict.pop("reasoning", None)
        for old, new in _TRIAL_FIELDS.items():
            if new in trial:
                trial[old] = trial.pop(new)
    if policy := body.get("policy"):
        run, index = policy.pop("run"), policy["round"]
        del policy["version"]
        policy.pop("verdicts", None)
        policy["round"] = "" if index is None else f"{run}/rounds/{index}"


def _new_config(config: dict[str, Any]) -> bool:
    changed = [_move(config, old, new) for old, new in _CONFIG_KEYS.items()]
    return _replace(config, ("adapt", "commit"), "stack", "join") or any(changed)


def _old_config(config: dict[str, Any]) -> bool:
    changed = [_move(config, new, old) for old, new in _CONFIG_KEYS.items()]
    changed += [config.get(section, {}).pop(key, None) is not None for section, key in _NEW_KEYS]
    changed += [config.pop(section, None) is not None for section in _NEW_SECTIONS]
    return _replace(config, ("adapt", "commit"), "join", "stack") or any(changed)


def _new_manifest(manifest: dict[str, Any]) -> bool:
    instructions = manifest["instructions"]
    if "race" not in instructions:
        return False
    race = instructions["early_stopping"] = instructions.pop("race")
    if race is not None:
        race["interval"] = race.pop("wave")
    return True


def _old_manifest(manifest: dict[str, Any]) -> bool:
    instructions = manifest["instructions"]
    if "early_stopping" not in instructions:
        return False
    for key in ("start_from", "teaching", "editor_template", "question_template"):
        instructions.pop(key, None)
    manifest["found"].pop("teacher_answers", None)
    race = instructions["race"] = instructions.pop("early_stopping")
    if race is not None:
        race["wave"] = race.pop("interval")
    return True


def _move(config: dict[str, Any], old: tuple[str, str], new: tuple[str, str]) -> bool:
    section = config.get(old[0], {})
    if old[1] not in section:
        return False
    config.setdefault(new[0], {})[new[1]] = section.pop(old[1])
    return True


def _replace(config: dict[str, Any], key: tuple[str, str], old: str, new: str) -> bool:
    if config.get(key[0], {}).get(key[1]) != old:
        return False
    config[key[0]][key[1]] = new
    return True
