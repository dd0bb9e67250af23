"""Reruns: a trial made again from its manifest, and the differences.

`TrialWork` executes a rerun like any trial, but with the recorded instructions: the self-edit is sampled again, the
adapter is trained again even if the store has it, and the evaluator uses no cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from controller.db import reruns
from controller.db.database import Database
from controller.db.reruns import Tried
from controller.heartbeats import Heartbeats
from controller.trial.dispatcher import RERUNS
from controller.trial.versions import changes
from sealkit.errors import Unavailable
from sealkit.queue import Queue
from sealkit.reports import Difference, Rerun
from sealkit.resources import Trial
from sealkit.types import Verdict

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.5
_SHOWN = 160
"""Most characters that a difference shows of a text."""
_BEFORE = 20
_FOUND = ("spec", "adapter", "weights_sha256", "steps", "final_loss")
_SCORES = ("accuracy", "baseline_accuracy", "forgetting", "divergence", "reward", "stopped_early")


async def requeue_reruns(database: Database, queue: Queue, heartbeats: Heartbeats) -> None:
    """Queues each waiting rerun, also after Redis lost it; never returns.

    The run of a rerun may have ended long ago, so no driver does this. If two workers queue the same rerun, one of the
    deliveries finds nothing to do.
    """
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        try:
            await _put_missing(database, queue, heartbeats)
        except Unavailable as error:
            log.warning("reruns wait", message=error.message)


async def _put_missing(database: Database, queue: Queue, heartbeats: Heartbeats) -> None:
    dead = await heartbeats.dead()
    if await database.read(reruns.orphaned, dead):
        await database.write(reruns.put_back, dead)
    if waiting := await database.read(reruns.waiting):
        queued = await queue.bodies(RERUNS.run_id)
        await queue.put(RERUNS.run_id, [name for name in waiting if name not in queued])


def compare(rerun: Tried, original: Tried) -> Rerun:
    """Compares a rerun with its original; the differences are empty until the rerun has ended."""
    if not rerun.trial.state.terminal:
        return Rerun(trial=rerun.trial, original=original.trial.name)
    found = tuple(_differences(original, rerun))
    return Rerun(trial=rerun.trial, original=original.trial.name, identical=not found, differences=found)


def _differences(was: Tried, now: Tried) -> Iterator[Difference]:
    """In the order of a trial's stages, because the first difference is the likely cause of the others."""
    yield from _one("state", _ended(was.trial), _ended(now.trial))
    yield from _one("completion", was.trial.completion, now.trial.completion)
    yield from _one("reasoning", was.trial.reasoning, now.trial.reasoning)
    recorded, again = (dict(enumerate(one.trial.teacher_answers)) for one in (was, now))
    yield from _all("teacher_answers", recorded, again, "teacher_answers[{}]")
    yield from _one("rejection", was.trial.rejection, now.trial.rejection)
    if was.manifest is None or now.manifest is None:  # it failed; the difference in state shows the error
        return
    for name in _FOUND:
        if name not in was.manifest.found.model_fields_set:  # the version that made the trial did not record it
            continue
        yield from _one(name, _text(getattr(was.manifest.found, name)), _text(getattr(now.manifest.found, name)))
    yield from _verdict_differences(was.trial.verdicts, now.trial.verdicts)
    yield from _one("baseline_verdicts", was.manifest.found.baseline, now.manifest.found.baseline)
    for name in _SCORES:
        yield from _one(name, _text(getattr(was.trial, name)), _text(getattr(now.trial, name)))
    yield from _all("material", was.manifest.material, now.manifest.material)
    for fact, before, after in changes(was.manifest.versions, now.manifest.versions):
        yield from _one(f"versions.{fact}", _text(before), _text(after))


def _verdict_differences(was: tuple[Verdict, ...], now: tuple[Verdict, ...]) -> Iterator[Difference]:
    before, after = ({v.query_id: f"{v.outcome.value}: {v.answer}" for v in side} for side in (was, now))
    yield from _all("verdicts", before, after, "verdicts[{}]")


def _all(part: str, was: Mapping[Any, Any], now: Mapping[Any, Any], form: str = "{part}.{}") -> Iterator[Difference]:
    for name in dict.fromkeys([*was, *now]):
        yield from _one(form.format(name, part=part), _text(was.get(name)), _text(now.get(name)))


def _one(field: str, was: str, now: str) -> Iterator[Difference]:
    if was == now:
        return
    same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now)))
    yield Difference(field=field, recorded=_from(was, same), rerun=_from(now, same))


def _from(text: str, first: int) -> str:
    """The part to show of a text whose first difference is at character `first`."""
    begin = max(0, first - _BEFORE) if len(text) > _SHOWN else 0
    shown = text[begin : begin + _SHOWN]
    return f"{'…' if begin else ''}{shown}{'…' if begin + _SHOWN < len(text) else ''}"


def _ended(trial: Trial) -> str:
    return f"{trial.state.value}: {trial.error.reason}: {trial.error.message}" if trial.error else trial.state.value


def _text(value: object) -> str:
    return "–" if value in (None, "") else str(value)
