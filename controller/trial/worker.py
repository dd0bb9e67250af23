"""A worker: takes trials from the queue, executes several concurrently, and finishes each under a fenced lease.

While a trial is in progress its message is renewed in Redis and its lease checked in SQL. If the lease is lost (the run
was cancelled, or the worker was considered dead), the trial is cancelled here, which cancels the calls to the services.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from controller.db import attempts, contexts, runs
from controller.db.attempts import Result, Sampled, Spent, Taken, Untaken
from controller.db.database import Database
from controller.db.leases import TrialLease
from controller.db.trials import Plan
from controller.heartbeats import Heartbeats
from controller.retry import backoff, retry_until_available, run_with_background
from controller.rules.setup import Setup, complete_setup, with_earlier
from controller.services import Services
from controller.trial.concurrency_limit import ConcurrencyLimit
from controller.trial.dispatcher import Dispatcher
from controller.trial.metrics import count_delivery, count_late, count_trial, count_untaken, show_depth
from controller.trial.rerun import requeue_reruns
from controller.trial.versions import Versions
from controller.trial.work import TrialWork
from controller.waits import Waits
from sealkit.errors import AdapterCorrupt, AdapterNotFound, SealError, Unavailable
from sealkit.faults import fault_of
from sealkit.names import run_name
from sealkit.observability import tracing
from sealkit.queue import Delivery, Queue
from sealkit.resources import TrialPhase, TrialState

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 0.5
_TAKING = "taking trials"
_SETUPS_KEPT = 32
_GIVE_BACK_SECONDS = 5.0
_RETRIED = (AdapterNotFound, AdapterCorrupt)
"""Errors that another attempt fixes: the trainer makes an adapter again that the store lost."""


@dataclass(slots=True)
class InFlight:
    """A delivery in progress; `lease` is set once this worker has taken the trial in the database."""

    delivery: Delivery
    task: asyncio.Task[None]
    lease: TrialLease | None = None
    place: str = ""
    """Trace context of its span."""
    settling: bool = False
    """Its last write to the database is in progress."""


class Worker:
    """Executes trials, `concurrency` at a time."""

    def __init__(
        self,
        *,
        database: Database,
        queue: Queue,
        services: Services,
        heartbeats: Heartbeats,
        waits: Waits,
        concurrency: int,
        max_deliveries: int,
        plugins: tuple[str, ...] = (),
        limit: ConcurrencyLimit | None = None,
    ) -> None:
        """The services' clients report to `limit` when a service is full."""
        self._database = database
        self._waits = waits
        self._queue = queue
        self._services = services
        self._versions = Versions(services)
        self._heartbeats = heartbeats
        self._dispatcher = Dispatcher(database, queue, heartbeats.lease_seconds)
        self._limit = limit or ConcurrencyLimit(concurrency)
        self._max_deliveries = max_deliveries
        self._plugins = plugins
        self._setups: dict[str, Setup] = {}
        self._in_flight: dict[str, InFlight] = {}
        self._suspected: set[TrialLease] = set()

    async def run(self) -> None:
        """Works until it is cancelled, then gives its trials back. A crash of one of its tasks ends it."""
        try:
            reruns = requeue_reruns(self._database, self._queue, self._heartbeats)
            await run_with_background(self._pull(), self._maintain_leases(), reruns)
        finally:
            await self._give_all_back()

    # --- taking -------------------------------------------------------------------------------------------------------
    async def _pull(self) -> None:
        pause = backoff()
        while True:
            while len(self._in_flight) >= self._limit.limit:
                await asyncio.wait([f.task for f in self._in_flight.values()], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0)  # lets `_on_done` run
            try:
                for delivery in await self._dispatcher.next(self._limit.limit - len(self._in_flight)):
                    self._start(delivery)
                pause = backoff()
                for run_id in self._dispatcher.runs:
                    await self._waits.answered(run_id, _TAKING)
            except Unavailable as error:
                seconds = next(pause)
                log.warning("waiting", doing=_TAKING, message=error.message, seconds=seconds)
                for run_id in self._dispatcher.runs:
                    await self._waits.failed(run_id, _TAKING, error)
                await asyncio.sleep(seconds)

    def _start(self, delivery: Delivery) -> None:
        if delivery.key in self._in_flight:
            return  # this process was suspended for so long that its own messages looked idle
        count_delivery(delivery)
        task = asyncio.create_task(self._execute(delivery))
        self._in_flight[delivery.key] = InFlight(delivery, task)
        task.add_done_callback(lambda done: self._on_done(delivery, done))

    def _on_done(self, delivery: Delivery, task: asyncio.Task[None]) -> None:
        flight = self._in_flight.pop(delivery.key, None)
        self._dispatcher.finished(delivery)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # A bug, here or in a domain plug-in: the trial fails, and the worker continues.
        log.error("trial crashed", trial=delivery.body, exc_info=error)
        if flight is not None and flight.lease is not None:
            result = Result(state=TrialState.FAILED, error=fault_of(error))
            ending = asyncio.create_task(self._end(flight.lease, result, delivery))
            self._in_flight[delivery.key] = InFlight(delivery, ending, flight.lease, settling=True)
            ending.add_done_callback(lambda _: self._in_flight.pop(delivery.key, None))

    # --- a trial ------------------------------------------------------------------------------------------------------
    async def _execute(self, delivery: Delivery) -> None:
        taken = await self._record(
            attempts.take,
            delivery.body,
            self._heartbeats.worker_id,
            previous=await self._lost_by(delivery),
            max_deliveries=self._max_deliveries,
        )
        if isinstance(taken, Untaken):
            count_untaken(taken)
            await self._acknowledge(delivery)
            return
        flight = self._in_flight[delivery.key]
        flight.lease = taken.lease
        with (
            bound_contextvars(run=run_name(taken.plan.run_id), trial=taken.lease.name),
            self._waits.of(taken.plan.run_id),
            _span(taken, delivery) as place,
        ):
            flight.place = place
            result = await self._result(taken)
            flight.settling = True
            if result is None:
                await self._requeue(taken.lease, delivery, counts=True, place=place)
            else:
                tracing.note({"seal.state": result.state.value})
                await self._end(taken.lease, result, delivery)

    async def _lost_by(self, delivery: Delivery) -> str | None:
        """The worker that a claimed delivery is taken from, if it is dead. A living one keeps its trial: its message
        only looks idle, because Redis counts by the wall clock."""
        if delivery.previous is None:
            return None
        dead = await retry_until_available(self._heartbeats.dead, doing="reading the heartbeats")
        return delivery.previous if delivery.previous in dead else None

    async def _result(self, taken: Taken) -> Result | None:
        """How the trial ended; None if it should be tried again."""

        async def keep(sampled: Sampled, spent: Spent) -> None:
            await self._record(attempts.save_sampled, taken.lease, sampled, spent)

        work = TrialWork(taken, self._services, self._versions, keep)
        try:
            return await work.bring_to_end(await self._with_earlier(await self._setup(taken.plan.run_id), taken.plan))
        except SealError as error:
            if isinstance(error, _RETRIED) and taken.attempts < self._max_deliveries:
                log.warning("trial will be retried", reason=error.reason, message=error.message)
                return None
            return work.failed(error)

    async def _setup(self, run_id: str) -> Setup:
        if run_id not in self._setups:
            if len(self._setups) >= _SETUPS_KEPT:
                self._setups.pop(next(iter(self._setups)))
            plan = await self._record(runs.plan, run_id)
            self._setups[run_id] = await complete_setup(plan, self._plugins, self._services.generator)
        return self._setups[run_id]

    async def _with_earlier(self, setup: Setup, plan: Plan) -> Setup:
        """The setup of a trial, with the queries of contexts that its run learned earlier, if the config says so."""
        if not (count := setup.config.evaluation.earlier_contexts) or not plan.round:
            return setup
        learned = await self._record(contexts.learned_before, plan.run_id, plan.round, count)
        return with_earlier(setup, [context for context in learned if context.context_id != plan.context_id])

    async def _end(self, lease: TrialLease, result: Result, delivery: Delivery) -> None:
        trial = await self._record(attempts.finish, lease, result)
        if trial is None:
            count_late()
            log.warning("late result refused", state=result.state)
        else:
            self._limit.ended()
            if trial.phase is not TrialPhase.RERUN:
                count_trial(trial)
            error = trial.error.message if trial.error else None
            log.info("trial ended", state=trial.state, reward=trial.reward, rejection=trial.rejection, error=error)
        await self._acknowledge(delivery)

    async def _requeue(self, lease: TrialLease, delivery: Delivery, *, counts: bool, place: str = "") -> None:
        """Queues the trial again, in SQL and in Redis; if Redis is unavailable, the run's driver does it later.
        `place`: the trace context of this attempt, to link the next one's span to."""
        given = await self._record(attempts.give_back, lease, counts=counts)
        try:
            again = tracing.followed_by(delivery.trace, place)
            await self._queue.put(delivery.stream, [lease.name] if given else [], trace=again)
        except Unavailable as error:
            log.warning("trial not queued yet", message=error.message)
        await self._acknowledge(delivery)

    async def _acknowledge(self, delivery: Delivery) -> None:
        """Deletes the message; if Redis is unavailable, it is delivered again later and found to be settled."""
        try:
            await self._queue.done([delivery])
        except Unavailable as error:
            log.warning("message not deleted", message=error.message)

    async def _record(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await retry_until_available(
            lambda: self._database.write(work, *args, **kwargs), doing="writing to the database"
        )

    # --- leases -------------------------------------------------------------------------------------------------------
    async def _maintain_leases(self) -> None:
        """Cancels trials whose lease was lost, renews the others' messages, and gives back orphaned leases."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                await self._check_leases()
                if time.monotonic() - renewed > self._heartbeats.lease_seconds / 4:
                    renewed = time.monotonic()
                    await self._queue.renew([flight.delivery for flight in self._in_flight.values()])
                    show_depth(await self._dispatcher.depth())
            except Unavailable as error:
                log.warning("leases not renewed", message=error.message)

    async def _check_leases(self) -> None:
        in_flight = [flight for flight in self._in_flight.values() if flight.lease is not None]
        held = await self._database.read(attempts.held_by, self._heartbeats.worker_id)
        for flight in in_flight:
            if flight.lease not in held and not flight.settling:
                log.info("lease lost", trial=flight.delivery.body)
                flight.task.cancel()
                await self._acknowledge(flight.delivery)
        # If the answer to a take was lost, this worker holds a trial that it does not know of.
        orphans = held - {flight.lease for flight in self._in_flight.values()}
        for lease in orphans & self._suspected:
            await self._requeue(lease, Delivery(lease.run_id, "0-0", lease.name), counts=False)
        self._suspected = orphans

    async def _give_all_back(self) -> None:
        in_flight = list(self._in_flight.values())
        for flight in in_flight:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in in_flight), return_exceptions=True)
        try:
            async with asyncio.timeout(_GIVE_BACK_SECONDS):
                for flight in in_flight:
                    if flight.lease is not None:
                        await self._requeue(flight.lease, flight.delivery, counts=False, place=flight.place)
        except TimeoutError:
            log.warning("trials not given back; they are free once the lease expires")


def _span(taken: Taken, delivery: Delivery) -> AbstractContextManager[str]:
    plan = taken.plan
    about = {
        "seal.round": plan.round,
        "seal.phase": plan.phase.value,
        "seal.editor": plan.editor,
        "seal.attempt": taken.attempts,
        "seal.lost_by": delivery.previous or "",
    }
    return tracing.span("trial", kind="consumer", trace=delivery.trace, attributes=about)
