"""A database with runs and trials, written as the driver and a worker write them, but without models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import Connection

from controller.accept import accept
from controller.db import attempts, contexts, leases, policies, runs, trials
from controller.db.access import ChangeRequest
from controller.db.attempts import Result, Spent
from controller.db.database import Database
from controller.db.leases import RunLease
from controller.db.trials import Plan
from sealkit.callers import NOBODY_KNOWN
from sealkit.resources import Editor, RoundStage, TrialPhase, TrialState
from sealkit.types import AdapterRef, Outcome, Retention, Usage, Verdict, digest_of

_CONTEXTS = 50
_EDITS = 5
_QUESTIONS = 5
_BATCH = 10
"""Trials that end in one transaction."""
_TEXT = "The Ossel rises in the hills above the town and reaches the sea after ninety kilometres. " * 8
_RECORDS = [
    {"title": f"Ossel {n}", "context": _TEXT, "questions": [{"question": "Which river?", "answer": "Ossel"}]}
    for n in range(_CONTEXTS)
]


async def queue_runs(database: Database, count: int) -> None:
    """Runs that no worker drives."""
    for number in range(count):
        await database.write(_create, f"queued-{number}", rounds=1)


async def drive(database: Database, request_id: str, count: int) -> tuple[str, AsyncIterator[int]]:
    """The name of a new run, and an iterator that ends `count` of its trials, in rounds: yields how many have ended.
    Takes every run that waits for a worker."""
    name = await database.write(_create, request_id, rounds=-(-count // (_CONTEXTS * (_EDITS + 1))))
    await database.write(leases.beat, "benchmark")
    (lease,) = [one for one in await database.write(runs.take_free, "benchmark", ()) if one.run == name]
    policy = await database.write(policies.begin, lease, start_policy="", base_model="ab" * 32, domain="knowledge")
    learned = [one.context_id for one in await database.read(contexts.of_split, lease.run_id, "train")]
    places = [(context, index) for context in learned for index in range(_EDITS + 1)]
    return name, _ends(database, lease, policy.name, count, places)


async def _ends(
    database: Database, lease: RunLease, policy: str, count: int, places: Sequence[tuple[str, int]]
) -> AsyncIterator[int]:
    for number, start in enumerate(range(0, count, len(places))):
        await database.write(runs.stage, lease, number, RoundStage.E_STEP)
        plans = [_plan(lease.run_id, number, policy, *place) for place in places[: count - start]]
        names = await database.write(trials.add, lease, plans)
        for first in range(0, len(names), _BATCH):
            await database.write(_end, names[first : first + _BATCH])
            yield start + min(first + _BATCH, len(names))


def _create(connection: Connection, request_id: str, *, rounds: int) -> str:
    config = {"rounds": rounds, "contexts_per_round": _CONTEXTS, "editor": {"k": _EDITS}, "held_out": {"samples": 0}}
    new, found = accept(
        request_id=request_id, display_name=request_id, config=config, records=_RECORDS, retention=[], plugins=()
    )
    change = ChangeRequest(NOBODY_KNOWN, "CreateRun", f"runs/{new.run_id}", request_id)
    return runs.create(connection, change, new, found).name


def _plan(run_id: str, round_index: int, policy: str, context: str, index: int) -> Plan:
    editor = Editor.POLICY if index < _EDITS else Editor.PASSAGE_ONLY
    return Plan(
        run_id=run_id, round=round_index, trial_id=f"{context}-{index}", phase=TrialPhase.E_STEP, editor=editor,
        context_id=context, index=index, policy=policy,
    )  # fmt: skip


def _end(connection: Connection, names: list[str]) -> None:
    for name in names:
        taken = attempts.take(connection, name, "benchmark", previous=None, max_deliveries=8)
        assert isinstance(taken, attempts.Taken)
        attempts.finish(connection, taken.lease, _result(name))


def _result(name: str) -> Result:
    """One that differs from trial to trial, and is the same in every run of the benchmark."""
    luck = int(digest_of(name.partition("/rounds/")[2])[:8], 16) / 2**32
    right = round(luck * _QUESTIONS)
    outcomes = [Outcome.CORRECT if n < right else Outcome.INCORRECT for n in range(_QUESTIONS)]
    verdicts = tuple(Verdict(query_id=f"q{n}", answer="the Ossel", outcome=one) for n, one in enumerate(outcomes))
    usage = Usage(prompt_tokens=900, completion_tokens=200, train_tokens=4500, device_seconds=4.0)
    retention = Retention(kept=40, accuracy_before=1.0, accuracy_after=1 - luck / 4, forgetting=luck / 4)
    return Result(
        state=TrialState.SUCCEEDED, adapter=AdapterRef(digest=digest_of(name)), accuracy=right / _QUESTIONS,
        baseline_accuracy=0.2, forgetting=luck / 4, retention=retention, reward=right / _QUESTIONS - 0.2,
        verdicts=verdicts, baseline_verdicts=verdicts,
        spent=Spent(stage_seconds={"generate": 1.0, "train": 2.0, "evaluate": 1.0}, stage_usage={"train": usage}),
    )  # fmt: skip
