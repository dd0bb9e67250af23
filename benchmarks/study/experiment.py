"""One run of the embedded stack, and its record.

A run has a fixed request id, so the same experiment is the same run: one that was interrupted continues where it was.
The record is written after every round; whoever wants to measure a finished experiment again removes its record.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seal_cli.stack.layout import CONTROLLER, Layout
from seal_cli.stack.supervisor import down, up
from sealkit.client import SealClient
from sealkit.config import RunConfig
from sealkit.resources import RoundFinished, Run, RunState, Trial
from sealkit.types import digest_of

_STOPPED = (RunState.FAILED, RunState.CANCELLED, RunState.PAUSED)
_KEPT = {"rows", "curve", "verdict", "rl_gain", "arm_gains", "power", "trial_counts", "kept", "wall_seconds", "usage"}
"""The fields of the report in the record."""
COLUMNS = (
    "round",
    "phase",
    "state",
    "context",
    "editor",
    "policy",
    "index",
    "accuracy",
    "baseline",
    "selected",
    "edit",
)
"""Of a trial in the record: `policy` counts within the run; `edit` is a digest of the self-edit's text."""
Columns = Mapping[str, Callable[[Trial], Any]]
"""What else of a trial is in the record, by name."""


def usage_of(trial: Trial) -> dict[str, list[float]]:
    """By stage: tokens read, written and trained on, device seconds, seconds from its start to its end."""
    return {
        stage: [
            used.prompt_tokens,
            used.completion_tokens,
            used.train_tokens,
            round(used.device_seconds, 3),
            round(trial.stage_seconds.get(stage, 0.0), 3),
        ]
        for stage, used in trial.stage_usage.items()
    }


SPENT: Columns = {
    "forgetting": lambda trial: trial.forgetting,
    "retained": lambda trial: trial.retention.kept if trial.retention else None,
    "usage": usage_of,
}
"""`retained`: retention questions that were asked again."""


@dataclass(frozen=True)
class Experiment:
    """`variant`: which of the table's settings; `records`: those of the dataset; `more`: columns beside `COLUMNS`."""

    table: str
    seed: int
    variant: str
    config: RunConfig
    records: Sequence[dict[str, Any]]
    more: Columns = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the record's file and of the run."""
        return f"{self.table}-{self.variant}-{self.seed}"


@contextmanager
def stack(model: Path, data: Path, say: Callable[[str], None]) -> Iterator[SealClient]:
    """A client of the embedded stack in the folder `data`, which is stopped at the end."""
    layout = Layout.at(data)
    started = up(layout, str(model.resolve()), port=0, timeout=600, say=say)
    try:
        controller = started.state.find(CONTROLLER)
        assert controller is not None
        with SealClient(controller.address) as client:
            yield client
    finally:
        down(layout, say)


def perform(client: SealClient, experiment: Experiment, folder: Path, say: Callable[[str], None]) -> None:
    """Brings the experiment's run to its end; writes its record to `folder`."""
    run = client.create_run(experiment.config, experiment.records, request_id=f"study-{experiment.name}")
    if run.state in _STOPPED:
        run = client.resume_run(run.name)
    for event in client.watch_run(run.name):
        if isinstance(event.kind, RoundFinished):
            write(client, experiment, run, folder)
            say(f"{experiment.name}: round {event.kind.round + 1} is done, {event.progress.trials_done} trials")
    write(client, experiment, run, folder)
    say(f"{experiment.name}: {client.report(run.name).verdict}")


def is_finished(record: Path) -> bool:
    """Whether the run of this record succeeded."""
    return record.exists() and json.loads(record.read_text(encoding="utf-8"))["state"] == RunState.SUCCEEDED.value


def write(client: SealClient, experiment: Experiment, run: Run, folder: Path) -> None:
    """The record of a run, finished or not; one trial a line."""
    run, report = client.get_run(run.name), client.report(run.name)
    order = {policy.name: number for number, policy in enumerate(report.policies)}
    about = {
        "table": experiment.table,
        "variant": experiment.variant,
        "seed": experiment.seed,
        "state": run.state.value,
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} hardware threads",
        "date": datetime.now(UTC).date().isoformat(),
        "config": run.config,
        "report": report.model_dump(mode="json", include=_KEPT),
        "policies": [
            {
                "gate": policy.gate.value,
                "reason": policy.gate_reason,
                "examples": len(policy.trials),
                "forgetting": policy.forgetting,
                "device_seconds": round(policy.usage.device_seconds, 1),
            }
            for policy in report.policies
        ],
        "columns": (*COLUMNS, *experiment.more),
    }
    rows = ",\n".join(json.dumps(_row(trial, order, experiment.more)) for trial in client.list_trials(run.name))
    text = json.dumps(about)[:-1] + f', "trials": [\n{rows}\n]}}\n'
    file = folder / f"{experiment.name}.json"
    scratch = file.with_suffix(".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(file)


def _row(trial: Trial, order: Mapping[str, int], more: Columns) -> list[Any]:
    return [
        trial.round,
        trial.phase.value,
        trial.state.value,
        trial.context_id,
        trial.editor,
        order[trial.policy],
        trial.index,
        trial.accuracy,
        trial.baseline_accuracy,
        trial.selected,
        digest_of(trial.completion)[:8],
        *(value(trial) for value in more.values()),
    ]
