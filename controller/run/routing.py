"""Routed versions: the trainer writes the routes. An adapter that they lead to and that the store has lost is trained
again, from the texts that its trial stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from controller.db import budgets, contexts, documents, runs
from controller.db.database import Database
from controller.db.leases import RunLease
from controller.retry import retry_until_available, training_result
from controller.rules.commits import routes_to, spec_of_trial
from controller.rules.setup import BASE, Setup, complete_setup
from controller.services import Services
from sealkit.domains.base import Rejected
from sealkit.errors import AdapterCorrupt, AdapterNotFound, NotReproducible
from sealkit.names import run_id_of
from sealkit.resources import Trial
from sealkit.routing import Route
from sealkit.types import AdapterRef

log = structlog.get_logger(__name__)


class Routing:
    """The routes of a run's versions. Raises LeaseLost once the run was taken over or cancelled."""

    def __init__(
        self, lease: RunLease, setup: Setup, *, database: Database, services: Services, plugins: Sequence[str]
    ) -> None:
        self._lease = lease
        self._setup = setup
        self._database = database
        self._services = services
        self._plugins = plugins

    async def routes(self, kept: Sequence[Trial]) -> list[Route]:
        """The adapters of these trials, of any runs, each with what its context says."""
        about = await self._database.read(contexts.of_trials, kept)
        return await asyncio.to_thread(routes_to, self._setup, about, kept)

    async def write(self, t: int, routes: Sequence[Route], kept: Sequence[Trial]) -> AdapterRef:
        """The routed adapter of `routes`, which are those of the `kept` trials, in round t. Raises what `RouteAdapters`
        raises; NotReproducible if the store has lost an adapter that cannot be trained again."""
        again = set[str]()
        while True:
            try:
                return await retry_until_available(
                    lambda: self._services.trainer.route_adapters(routes), doing="routing adapters"
                )
            except (AdapterNotFound, AdapterCorrupt) as error:
                digest = error.metadata.get("digest", "")
                lost = next((one for one in kept if one.adapter and one.adapter.digest == digest), None)
                if lost is None or digest in again:
                    raise
                again.add(digest)
                log.warning("adapter will be trained again", trial=lost.name, reason=error.reason, digest=digest)
                await self._database.write(runs.stage, self._lease, t, "training lost adapters again")
                await self._train_again(lost)

    async def _train_again(self, trial: Trial) -> None:
        run_id = run_id_of(trial.name)
        plan = await self._database.read(runs.plan, run_id)
        setup = await complete_setup(plan, self._plugins, self._services.generator)
        context = await self._database.read(contexts.get, run_id, trial.context_id)
        try:
            spec = await asyncio.to_thread(spec_of_trial, setup, context, trial)
        except Rejected as rejected:
            raise await self._lost(trial, f"its self-edit is rejected now ({rejected})") from rejected
        result = await retry_until_available(
            lambda: training_result(self._services.trainer.train_adapter(BASE, spec, owner=self._lease.run)),
            doing="training a lost adapter again",
        )
        await self._database.write(budgets.spend, self._lease, result.usage)
        if result.adapter != trial.adapter:
            raise await self._lost(trial, f"trained again it is another one ({result.adapter.digest})")

    async def _lost(self, trial: Trial, why: str) -> NotReproducible:
        known = await self._database.read(documents.known, [trial.name])
        about = known[0].document.name if known else trial.context_id
        assert trial.adapter is not None  # only trials with a score are kept
        return NotReproducible(
            f"the adapter of {about} ({trial.name}) is no longer in the adapter store, and {why}; restore "
            f"{trial.adapter.digest} from a backup of the store, or learn the documents again on another alias",
            metadata={"document": about, "trial": trial.name, "digest": trial.adapter.digest},
        )
