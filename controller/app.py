"""A controller process: the API, a worker (which drives runs and executes trials), or both.

The only place where the parts are put together; tests pass fakes in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import structlog

from controller.db.database import Database
from controller.db.run_metrics import RunMetrics
from controller.heartbeats import Heartbeats
from controller.retry import run_with_background
from controller.run.driver import Driver
from controller.service import ControllerService
from controller.services import Services
from controller.settings import ControllerSettings
from controller.trial.concurrency_limit import ConcurrencyLimit
from controller.trial.worker import Worker
from controller.waits import Waits, report_missing_workers
from sealkit.errors import InvalidConfig, SealError, Unavailable
from sealkit.observability.metrics import watch_disk
from sealkit.queue import Queue
from sealkit.rpc.authority import Authority, CallersFile, Everyone, Peers
from sealkit.rpc.services import EvaluatorClient, GeneratorClient, TrainerClient

log = structlog.get_logger(__name__)


class App:
    """Implements `sealkit.rpc.server.Service`."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        worker_id: str,
        api: bool,
        worker: bool,
        stop: Callable[[], None],
        queue: Queue | None = None,
        services: Services | None = None,
    ) -> None:
        """`stop` ends the process; it is called if the worker crashes. Raises InvalidConfig on bad settings."""
        self._settings = settings
        self._worker_id = worker_id
        self._with_worker = worker
        self._stop = stop
        self._database = Database(settings.database_url)
        options = (settings.domain_plugins, settings.editors, lambda: self.authority.quotas, settings.max_dataset_mib)
        # Not the worker's: a full evaluator makes a worker start fewer trials, but not because of answers.
        self._asked = (services or self._connect()) if api else None
        self._service = ControllerService(self._database, *options, services=self._asked) if self._asked else None
        self._queue = queue or Queue(settings.redis_url, consumer=worker_id, stream=settings.queue)
        self._services = services
        self._limit = ConcurrencyLimit(settings.worker_concurrency)
        self._working: asyncio.Task[None] | None = None
        self._metrics: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.broke = False
        """Whether the worker has crashed."""
        self.full_names: tuple[str, ...] = self._service.full_names if self._service else ("seal.controller.Worker",)

    @cached_property
    def authority(self) -> Authority:
        """Who may call: the callers in the callers file; a process with only a worker needs none; without TLS everyone.
        Raises InvalidConfig."""
        if self._settings.identity is None:
            return Everyone()
        if self._service is None:
            return Peers(frozenset(self._settings.tls_peers))
        if not self._settings.callers_file:
            raise InvalidConfig("with TLS the API needs a list of callers: set SEAL_CONTROLLER_CALLERS_FILE")
        return CallersFile(Path(self._settings.callers_file))

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the API, if this process has it; without it, only health checks are answered."""
        if self._service is not None:
            self._service.register(server)

    async def start(self) -> None:
        """Opens the database and starts the worker. Raises Unavailable if the database or Redis does not answer."""
        await self._database.start()
        if self._database.folder is not None:
            watch_disk("database", self._database.folder)
        if self._service is not None:
            self._metrics = asyncio.create_task(RunMetrics(self._database).keep())
        heartbeats = Heartbeats(self._database, self._worker_id, self._settings.lease_seconds)
        if not self._with_worker:
            missing = report_missing_workers(self._database, heartbeats, Waits(self._database))
            self._looking = asyncio.create_task(missing)
            return
        await self._queue.ping()
        await heartbeats.enter()
        self._services = self._services or self._connect(on_full=self._limit.full)
        self._working = asyncio.create_task(self._work(heartbeats, self._services))
        self._working.add_done_callback(self._on_end)

    async def refused(self, method: str, request: Any, error: SealError) -> None:
        """Enters a change that the API refused in the audit log."""
        if self._service is not None:
            await self._service.refused(method, request, error)

    async def drain(self) -> None:
        """Ends the watch streams."""
        if self._service is not None:
            await self._service.drain()

    async def close(self) -> None:
        """Gives back the trials in progress, then closes the connections."""
        for task in (self._working, self._metrics, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._asked is not None:
            await self._asked.close()
        if self._services is not None:
            await self._services.close()
        await self._queue.close()
        await self._database.close()

    async def _work(self, heartbeats: Heartbeats, services: Services) -> None:
        settings, plugins = self._settings, self._settings.domain_plugins
        waits = Waits(self._database)
        worker = Worker(
            database=self._database,
            queue=self._queue,
            services=services,
            heartbeats=heartbeats,
            waits=waits,
            concurrency=settings.worker_concurrency,
            max_deliveries=settings.max_deliveries,
            plugins=plugins,
            limit=self._limit,
        )
        driver = Driver(
            database=self._database,
            queue=self._queue,
            services=services,
            heartbeats=heartbeats,
            waits=waits,
            plugins=plugins,
        )
        try:
            await run_with_background(heartbeats.keep(), worker.run(), driver.run())
        finally:
            await self._leave(heartbeats)

    async def _leave(self, heartbeats: Heartbeats) -> None:
        try:
            await heartbeats.leave()
            await self._queue.forget()
        except Unavailable as error:
            log.warning("worker not signed off; its lease will expire", message=error.message)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.broke = True
            log.error("worker crashed", exc_info=task.exception())
            self._stop()

    def _connect(self, **options: Any) -> Services:
        settings = self._settings
        options |= {
            "timeout": settings.call_seconds,
            "max_message_mib": settings.max_message_mib,
            "identity": settings.identity,
        }
        return Services(
            generator=GeneratorClient(settings.generator, **options),
            trainer=TrainerClient(settings.trainer, **options),
            evaluator=EvaluatorClient(settings.evaluator, **options),
        )
