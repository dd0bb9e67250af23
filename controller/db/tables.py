"""The database's tables. Migrations are in `migrations`; a test checks that they give the same schema.

JSON columns contain the JSON form of the `sealkit` value in their comment.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

metadata = MetaData()

RERUNS = text("rerun_of != ''")
"""The condition for reruns. They are few and often queried, so they have a partial index."""


class UtcTime(TypeDecorator[datetime]):
    """A time that is read with its zone (UTC) from SQLite too, which does not store zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def now() -> datetime:
    """The time for rows (UTC). No lease depends on it, so a clock may jump."""
    return datetime.now(UTC)


def _run_id(*, key: bool = False) -> Column[str]:
    return Column("run_id", String(64), ForeignKey("runs.run_id"), nullable=False, primary_key=key)


runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("config", JSON, nullable=False),  # RunConfig, every default filled in
    Column("retention", JSON, nullable=False),  # [{id, question, answer, other_answers?}]
    Column("start_policy", String(256), nullable=False),  # `policies/{id}`; empty: the base model
    Column("create_time", UtcTime, nullable=False),
    Column("start_time", UtcTime),
    Column("end_time", UtcTime),
    Column("error", JSON(none_as_null=True)),  # Fault
    Column("stage", Text, nullable=False),
    Column("rounds_done", Integer, nullable=False),
    Column("rounds_total", Integer, nullable=False),
    Column("trials_done", Integer, nullable=False),
    Column("trials_total", Integer, nullable=False),
    Column("events", Integer, nullable=False),  # sequence number of the last event
    Column("driver", String(128), nullable=False),  # worker that drives it; empty: none
    Column("driver_token", Integer, nullable=False),  # fencing token: writes of earlier drivers are refused
    Column("priority", Integer, nullable=False, server_default="0"),  # higher ones go first
    Column("share", Float, nullable=False, server_default="1"),  # among runs of the same priority
    Column("budget", JSON(none_as_null=True)),  # current Budget: the config's, or ResumeRun's
    Column(
        "active_seconds", Float, nullable=False, server_default="0"
    ),  # active time so far, by its drivers' monotonic clocks
    Column("spent_tokens", BigInteger, nullable=False, server_default="0"),
    Column("spent_device_seconds", Float, nullable=False, server_default="0"),
    Column("tenant", String(64), nullable=False, server_default=""),  # owning tenant; empty: only admins
    Column("trace", Text, nullable=False, server_default=""),  # trace contexts of CreateRun and of resumes, if any
    Column("anchors", JSON, nullable=False, server_default="[]"),  # [{id, prompt}]
    Column("base_answers", JSON(none_as_null=True)),  # BaseAnswers; unset until the base model has answered
    Column("alias", String(64), nullable=False, server_default=""),  # alias that it learns documents on; empty: none
    Column("turn", Integer, nullable=False, server_default="0"),  # its turn among the runs of that alias, from 1
    Index("runs_by_time", "create_time", "run_id"),
    Index("runs_by_tenant", "tenant", "create_time", "run_id"),
    Index("runs_by_alias", "tenant", "alias", "turn"),
)

RUN_HEAD = [column for column in runs.c if column.name not in ("config", "retention", "anchors", "base_answers")]
"""A run's row without the long columns."""

contexts = Table(
    "contexts",
    metadata,
    _run_id(key=True),
    Column("position", Integer, primary_key=True),  # order of the records
    Column("context_id", String(512), nullable=False),
    Column("split", String(32), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("generated", Boolean, nullable=False, server_default=false()),  # whether its queries were generated
    Column("document", Integer),  # position of the document that it is a passage of; unset: it was a record
    Column("exam", JSON(none_as_null=True)),  # Exam; unset until it is made
    Index("contexts_by_id", "run_id", "context_id", unique=True),
)

documents = Table(
    "documents",
    metadata,
    _run_id(key=True),
    Column("position", Integer, primary_key=True),  # order in which they are learned
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False),  # of its bytes
    Column("text_digest", String(64), nullable=False),  # of its words; empty until it is read
    Column("content", LargeBinary),  # its bytes, until it is read
    Column("title", Text, nullable=False),
    Column("format", String(16), nullable=False),
    Column("notices", JSON, nullable=False),  # [text]
    Column("passages", Integer, nullable=False),
    Column("round", Integer),  # round that learns it; unset: it is not read yet, or skipped
    Column("state", String(16), nullable=False),  # DocumentState
    Column("reason", Text, nullable=False),
    Column("replaces", String(64), nullable=False),  # digest of its older version on the alias; empty: none
    Column("questions", Integer, nullable=False),  # of its exam
    Column("accuracy_before", Float),
    Column("accuracy_after", Float),
    Index("documents_by_round", "run_id", "round"),
)

rounds = Table(
    "rounds",
    metadata,
    _run_id(key=True),
    Column("round", Integer, primary_key=True),
    Column("policy", String(256), nullable=False),  # θ_t, `policies/{id}`
    Column("next_policy", String(256)),  # θ_{t+1}; unset until the M-step is done
    Column("kept", Integer, nullable=False),
    Column("start_time", UtcTime),
    Column("end_time", UtcTime),
)

trials = Table(
    "trials",
    metadata,
    Column("name", String(300), primary_key=True),  # `runs/{run}/rounds/{round}/trials/{trial}`
    _run_id(),
    Column("round", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("editor", String(64), nullable=False),
    Column("context_id", String(512), nullable=False),
    Column("index", Integer, nullable=False),
    Column("policy", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("token", Integer, nullable=False),  # fencing token: results with an older one are refused
    Column("worker", String(128), nullable=False),  # worker that has it; empty: none
    Column("attempts", Integer, nullable=False),
    Column("late_results", Integer, nullable=False),  # results refused
    Column("target_characters", Integer),  # passage-only: the group's average
    Column("trained_characters", Integer),  # characters of its spec times epochs
    Column("completion", Text),  # unset until sampled
    Column("teacher_answers", JSON(none_as_null=True)),  # [teacher's answer]; unset until sampled
    Column("reasoning", Text, nullable=False, server_default=""),  # what the model wrote before the completion
    Column("teacher_reasoning", JSON, nullable=False, server_default="[]"),  # likewise before each teacher's answer
    Column("rejection", Text, nullable=False),
    Column("adapter", JSON(none_as_null=True)),  # AdapterRef
    Column("accuracy", Float),
    Column("baseline_accuracy", Float),
    Column("forgetting", Float),
    Column("reward", Float),
    Column("selected", Boolean, nullable=False),
    Column("verdicts", JSON, nullable=False),  # [Verdict]
    Column("baseline_verdicts", JSON, nullable=False),  # [Verdict]
    Column("stage_seconds", JSON, nullable=False),
    Column("usage", JSON, nullable=False),  # Usage
    Column("error", JSON(none_as_null=True)),  # Fault
    Column("create_time", UtcTime, nullable=False),
    Column("end_time", UtcTime),
    Column("retention", JSON(none_as_null=True)),  # Retention
    Column("divergence", JSON(none_as_null=True)),  # Divergence
    Column("stopped_early", Boolean, nullable=False, server_default=false()),
    Column("batch_variant_rate", Float, nullable=False, server_default="0"),
    Column("stage_usage", JSON, nullable=False, server_default="{}"),  # {stage: Usage}
    Column("manifest", JSON, nullable=False, server_default="{}"),  # Manifest
    Column("rerun_of", String(300), nullable=False, server_default=""),
    Column("generated_exam", Boolean, nullable=False, server_default=false()),
    Index("trials_of_run", "run_id", "round", "name"),
    Index("trials_by_state", "run_id", "state"),
    Index("trials_by_worker", "state", "worker"),
    Index("reruns_by_state", "state", sqlite_where=RERUNS, postgresql_where=RERUNS),
)

policies = Table(
    "policies",
    metadata,
    Column("name", String(256), primary_key=True),  # `policies/{id}`
    _run_id(),
    Column("base_model", String(64), nullable=False),  # digest of the base model
    Column("version", Integer, nullable=False, server_default="0"),  # version in its run, from 0
    Column("parent", String(256), nullable=False),
    Column("round", Integer),  # round that made it; unset for a base model
    Column("adapter", JSON(none_as_null=True)),  # AdapterRef
    Column("trials", JSON, nullable=False),
    Column("forgetting", Float),
    Column("held_out_accuracy", Float),
    Column("create_time", UtcTime, nullable=False),
    Column("usage", JSON, nullable=False),  # Usage
    Column("retention", JSON(none_as_null=True)),  # Retention
    Column("divergence", JSON(none_as_null=True)),  # Divergence
    Column("scores", JSON, nullable=False, server_default="{}"),  # {context id: accuracy}: its row of R
    Column("gate", String(16), nullable=False, server_default="unmeasured"),  # GateState
    Column("gate_reason", Text, nullable=False, server_default=""),
    Column("verdicts", JSON, nullable=False, server_default="[]"),  # [Verdict] on the queries of `scores`
)

aliases = Table(
    "aliases",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("sequence", Integer, primary_key=True),  # from 1; the highest is the current one
    Column("policy", String(256), nullable=False),  # `policies/{id}`
    Column("reason", Text, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("restores", Integer),  # the move that a roll-back restores
)

events = Table(
    "events",
    metadata,
    _run_id(key=True),
    Column("sequence", Integer, primary_key=True),  # from 1, without gaps
    Column("time", UtcTime, nullable=False),
    Column("trial", String(300)),  # the trial that ended
    Column("progress", JSON, nullable=False),  # RunProgress
    Column("kind", String(64), nullable=False),  # class of the EventKind
    Column("body", JSON, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("digest", String(64), nullable=False),  # of method and content
    Column("run_id", Text, nullable=False),  # the resource: a run, a trial or an alias
    Column("create_time", UtcTime, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("quotas", JSON, nullable=False),  # Quotas
    Column("day", String(10), nullable=False),  # the day (UTC) of the next column
    Column("device_seconds", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("caller", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("resource", String(300), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_by_tenant", "tenant", "number"),
    Index("audit_by_resource", "resource", "number"),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", String(128), primary_key=True),
    Column("beat", Integer, nullable=False),  # heartbeat counter
)
