"""Drives runs: takes each unfinished run that no living worker drives, and executes it.

A run has one driver at a time, by a fenced lease in SQL. A driver that dies is replaced once its worker's lease has
expired. The next driver starts `rest_em`, `adapt` or `learn` from the top; steps that the database shows as done are
skipped.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from time import monotonic as steady
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from controller.db import budgets, runs, trials
from controller.db.database import Database
from controller.db.leases import LeaseLost, RunLease
from controller.db.runs import RunPlan
from controller.heartbeats import Heartbeats
from controller.retry import backoff, retry_until_available, run_with_background
from controller.rules.setup import base_answers, make_setup, with_base_answers
from controller.run.adapt import adapt
from controller.run.learn import learn
from controller.run.learn_steps import LearnSteps
from controller.run.rest_em import rest_em
from controller.run.steps import RunSteps
from controller.services import Services
from controller.trial.dispatcher import RERUNS
from controller.waits import Waits
from sealkit.errors import SealError, Unavailable
from sealkit.faults import fault_of
from sealkit.observability import tracing
from sealkit.queue import Queue
from sealkit.resources import Fault

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.25
_RECONCILES_A_LEASE = 4


class _ActiveTime:
    """Counts the time in which a run is driven, by this process's monotonic clock. A process that was suspended counts
    at most `longest` seconds at once: another driver counts the time after it took over."""

    def __init__(self, database: Database, lease: RunLease, *, longest: float) -> None:
        self._database = database
        self._lease = lease
        self._longest = longest
        self._counted_to = steady()

    async def keep(self, every_seconds: float) -> None:
        """Counts again and again; never returns. Raises LeaseLost."""
        while True:
            await asyncio.sleep(every_seconds)
            await self.count()

    async def count(self, *, more: bool = True) -> None:
        """Counts the time since the last count; later, if the database does not answer. Raises LeaseLost."""
        now = steady()
        try:
            seconds = min(now - self._counted_to, self._longest)
            await self._database.write(budgets.tick, self._lease, seconds, more=more)
        except Unavailable as error:
            log.warning("time not counted yet", message=error.message)
        else:
            self._counted_to = now


class Driver:
    """All the runs that this worker drives."""

    def __init__(
        self,
        *,
        database: Database,
        queue: Queue,
        services: Services,
        heartbeats: Heartbeats,
        waits: Waits,
        plugins: tuple[str, ...] = (),
    ) -> None:
        self._database = database
        self._waits = waits
        self._queue = queue
        self._services = services
        self._heartbeats = heartbeats
        self._plugins = plugins
        self._driven: dict[RunLease, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Drives runs until it is cancelled, then releases them."""
        every, tidied = self._heartbeats.lease_seconds / _RECONCILES_A_LEASE, -float("inf")
        try:
            while True:
                try:
                    await self._take_free_runs()
                    if steady() - tidied > every:
                        await self._tidy()
                        tidied = steady()
                except Unavailable as error:
                    log.warning("waiting", doing="looking for runs", message=error.message)
                await asyncio.sleep(min(_POLL_SECONDS, every))
        finally:
            await self._release()

    async def _take_free_runs(self) -> None:
        dead = await self._heartbeats.dead()
        if not await self._database.read(runs.free, dead):
            return
        for lease in await self._database.write(runs.take_free, self._heartbeats.worker_id, dead):
            task = asyncio.create_task(self._drive(lease))
            self._driven[lease] = task
            task.add_done_callback(partial(self._stopped, lease))

    async def _tidy(self) -> None:
        """Work for runs that have no driver: queues the trials of paused runs again whose worker died, and deletes the
        streams of runs that have ended."""
        dead = await self._heartbeats.dead()
        if await self._database.read(trials.orphaned_of_paused, dead):
            await self._database.write(trials.put_back_of_paused, dead)
        over = await self._queue.streams() - await self._database.read(runs.unsettled) - {RERUNS.run_id}
        await self._queue.drop(sorted(over))

    async def _drive(self, lease: RunLease) -> None:
        """Executes a run to its end; waits while a dependency is unavailable."""
        with bound_contextvars(run=lease.run), self._waits.of(lease.run_id):
            log.info("driving", token=lease.token)
            pause = backoff()
            while True:
                try:
                    await self._once(lease)
                    return
                except LeaseLost:
                    log.info("run was taken over or cancelled")
                    return
                except Unavailable as error:  # the database; calls to services are retried in the steps
                    log.warning("waiting", doing="driving", message=error.message)
                    await asyncio.sleep(next(pause))

    async def _once(self, lease: RunLease) -> None:
        try:
            plan = await self._database.read(runs.plan, lease.run_id)
            with tracing.span("drive", trace=plan.trace):
                await self._drive_by(plan, lease)
        except Unavailable:
            raise
        except SealError as error:
            log.error("run failed", reason=error.reason, message=error.message)
            await self._database.write(runs.fail, lease, fault_of(error))
            return
        await self._database.write(runs.succeed, lease)
        log.info("run succeeded")

    async def _drive_by(self, plan: RunPlan, lease: RunLease) -> None:
        setup = make_setup(plan, self._plugins)
        if setup.asks_base:
            answers = await base_answers(setup, self._services.generator)
            await self._database.write(runs.keep_base_answers, lease, answers.model_dump())
            setup = with_base_answers(setup, answers)
        parts: dict[str, Any] = {
            "database": self._database,
            "queue": self._queue,
            "services": self._services,
            "heartbeats": self._heartbeats,
            "plugins": self._plugins,
        }
        drive = LearnSteps(lease, setup, **parts) if plan.alias else RunSteps(lease, setup, **parts)
        every = self._heartbeats.lease_seconds / _RECONCILES_A_LEASE
        clock = _ActiveTime(self._database, lease, longest=self._heartbeats.lease_seconds)
        if isinstance(drive, LearnSteps):
            task = learn(drive)
        else:
            task = adapt(drive) if setup.config.task == "adapt" else rest_em(drive)
        try:
            await run_with_background(task, drive.follow(), drive.reconcile(every), clock.keep(every))
        finally:
            with suppress(LeaseLost):
                await clock.count(more=False)

    def _stopped(self, lease: RunLease, task: asyncio.Task[None]) -> None:
        self._driven.pop(lease, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # A bug: the run fails instead of hanging.
        log.error("driver crashed", run=lease.run, exc_info=error)
        self._driven[lease] = asyncio.create_task(self._fail(lease, fault_of(error)))

    async def _fail(self, lease: RunLease, fault: Fault) -> None:
        try:
            await retry_until_available(lambda: self._database.write(runs.fail, lease, fault), doing="ending a run")
        except LeaseLost:
            log.info("run was taken over or cancelled", run=lease.run)
        self._driven.pop(lease, None)

    async def _release(self) -> None:
        driven = dict(self._driven)
        for task in driven.values():
            task.cancel()
        await asyncio.gather(*driven.values(), return_exceptions=True)
        try:
            for lease in driven:
                await self._database.write(runs.release, lease)
        except Unavailable as error:
            log.warning("runs not released; they are free once the lease expires", message=error.message)
