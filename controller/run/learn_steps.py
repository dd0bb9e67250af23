"""The steps that `learn.py` is written in, besides those of `steps.py`. Each is idempotent."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import structlog

from controller.db import contexts, documents, erasure, policies, trials
from controller.db.access import FULL_ACCESS
from controller.db.documents import KnownDocument, StoredDocument
from controller.retry import gather_or_cancel, retry_until_available
from controller.rules.adoption import why_no_exam
from controller.rules.arms import planned_trials, ready_arms
from controller.rules.exam import Exam, examined
from controller.run.documents import read, rows_and_passages
from controller.run.steps import RunSteps
from sealkit.domains.base import Context, Examines
from sealkit.errors import FailedPrecondition, NothingToForget
from sealkit.names import alias_name, policy_name
from sealkit.resources import PolicyVersion
from sealkit.routing import routed_digest
from sealkit.types import AdapterRef, Verdict

log = structlog.get_logger(__name__)

_EXAMS_AT_ONCE = 8


class LearnSteps(RunSteps):
    """A run that learns documents on an alias, or makes it forget some."""

    _earlier: Sequence[Context] = ()
    """The passages that θ_0 was trained on."""

    # --- before the first round ---------------------------------------------------------------------------------------
    async def restore(self, theta: PolicyVersion) -> None:
        """Trains the adapters again that θ_0 routes to and that the store has lost. Raises what `Routing.write`
        raises."""
        kept = await self._database.read(trials.existing, theta.trials)
        routes = await self._routing.routes(kept)
        if theta.adapter == AdapterRef(digest=routed_digest(self.base_model, routes)):
            await self._routing.write(0, routes, kept)

    async def read(self, theta: PolicyVersion) -> None:
        """Reads the documents that were not read yet. Raises LeaseLost."""
        unread = await self._database.read(documents.unread, self._lease.run_id)
        if not unread:
            return
        await self.stage(0, "reading the documents")
        trainer, config = self._services.trainer, self.config.documents
        found = await retry_until_available(lambda: read(unread, trainer, config), doing="reading documents")
        known = [one for one in await self._known(theta) if not _is_named(one, self.config.adapt.forget)]
        first = 1 if self.config.adapt.forget else 0
        rows, passages = rows_and_passages(unread, found, known, self._examiner, first_round=first)
        total = first + sum(row.round is not None for row in rows)
        await self._database.write(documents.keep_read, self._lease, rows, passages, rounds_total=total)

    async def examine(self) -> None:
        """Makes the exams that are missing, each stored as soon as it is made. Raises LeaseLost, QuotaExceeded, and
        the services' errors."""
        missing = await self._database.read(contexts.without_exam, self._lease.run_id)
        if missing:
            await self.stage(0, "writing the exams")
        room = asyncio.Semaphore(_EXAMS_AT_ONCE)

        async def make(context: Context) -> None:
            async with room:
                whole, exam, usage = await examined(self._setup, self._services, context)
            await self._database.write(contexts.keep_exam, self._lease, whole, exam.model_dump(mode="json"), usage)

        await gather_or_cancel(*map(make, missing))
        if missing:
            train = self._with_queries(await self._database.read(contexts.of_split, self._lease.run_id, "train"))
            ready = ready_arms(self._setup.domain, train)
            planned = planned_trials(self.config, train=len(train), held_out=0, ready=ready)
            await self._database.write(documents.plan_trials, self._lease, planned.total)

    async def first_policy(self) -> PolicyVersion:
        """θ_0, measured on the exams of the documents that it knows and of those to learn."""
        theta = await self.begin()
        kept = await self._database.read(trials.existing, theta.trials)
        self._earlier = list((await self._database.read(contexts.of_trials, kept)).values())
        theta = await super().first_policy()
        self.train = self._with_queries(self.train)
        return theta

    @property
    def examined(self) -> Sequence[Context]:
        """The passages that θ_0 knows, and those to learn; each once."""
        found = {context.context_id: context for context in (*self._earlier, *self._with_queries(self.train))}
        return list(found.values())

    # --- a document ---------------------------------------------------------------------------------------------------
    async def documents(self) -> list[StoredDocument]:
        """The documents to learn, in the order of their rounds."""
        found = await self._database.read(documents.of_run, self._lease.run_id)
        return sorted((one for one in found if one.round is not None), key=lambda one: one.round or 0)

    def contexts_of(self, document: StoredDocument) -> list[Context]:
        """The passages of a document that have an exam."""
        return [context for context in self.train if context.document == document.position]

    def queries_of(self, about: Sequence[Context]) -> set[str]:
        """Ids of the queries of these contexts."""
        return {query.query_id for context in about for query in self._setup.queries(context)}

    async def why_no_exam(self, document: StoredDocument) -> str:
        """Why no passage of a document has an exam."""
        made = await self._database.read(contexts.exams, self._lease.run_id, document.position)
        return why_no_exam([Exam.from_stored(one) for one in made])

    async def trials_without(self, theta: PolicyVersion, left_out: Sequence[StoredDocument]) -> list[str]:
        """The trials that a version was trained on, without those on documents of these names."""
        names = {document.name for document in left_out}
        gone = {trial for one in await self._known(theta) if one.document.name in names for trial in one.trials}
        return [trial for trial in theta.trials if trial not in gone]

    async def verdicts_on(self, theta: PolicyVersion, names: Sequence[str]) -> list[Verdict]:
        """A version's verdicts on the exams of the passages of these trials."""
        kept = await self._database.read(trials.named, names)
        about = await self._database.read(contexts.of_trials, kept)
        asked = self.queries_of(list(about.values()))
        return [verdict for verdict in theta.verdicts if verdict.query_id in asked]

    # --- forgetting ---------------------------------------------------------------------------------------------------
    async def to_forget(self, theta: PolicyVersion) -> list[StoredDocument]:
        """The documents to forget. Raises NothingToForget that names one that the version does not know."""
        known = await self._known(theta)
        for name in self.config.adapt.forget:
            if not any(_is_named(one, [name]) for one in known):
                has = ", ".join(sorted({one.document.name for one in known})) or "none"
                raise NothingToForget(
                    f"{alias_name(self.config.gate.alias)} knows no document {name}; it knows {has}",
                    metadata={"document": name},
                )
        gone = await self._database.read(erasure.found, self._lease.run_id, self.config.adapt.forget)
        if gone and (others := await self._database.read(erasure.other_aliases, self._lease.run_id, gone)):
            raise FailedPrecondition(
                f"{alias_name(others[0])} points to a version that knows the document too, and that version would be "
                "deleted; point it to another one first (`seal alias set`)",
                metadata={"alias": alias_name(others[0])},
            )
        return [one.document for one in known if _is_named(one, self.config.adapt.forget)]

    async def delete_forgotten(self, theta: PolicyVersion) -> None:
        """Deletes all that was stored of the forgotten documents, in the adapter store and in the database. `theta`:
        the version without them, whose answers to their exams are counted first."""
        await self.stage(0, "deleting what was forgotten")
        start = await self._database.read(policies.get, FULL_ACCESS, policy_name(self._lease.run_id, 0))
        gone = await self._database.read(erasure.found, self._lease.run_id, self.config.adapt.forget)
        if gone and gone.adapters:
            refs = [AdapterRef(digest=digest) for digest in gone.adapters]
            await retry_until_available(lambda: self._services.trainer.delete_adapters(refs), doing="deleting adapters")
        if gone:
            await self._database.write(erasure.erase, self._lease, gone, start, theta)
        await retry_until_available(self._database.vacuum, doing="removing deleted pages from the database")

    async def _known(self, theta: PolicyVersion) -> list[KnownDocument]:
        return await self._database.read(documents.known, theta.trials)

    def _with_queries(self, found: Sequence[Context]) -> list[Context]:
        return [context for context in found if self._setup.queries(context)]

    @property
    def _examiner(self) -> Examines:
        domain = self._setup.domain
        assert isinstance(domain, Examines)  # checked when the run was created
        return domain


def _is_named(known: KnownDocument, names: Collection[str]) -> bool:
    """Whether one of the names is that of the document, or its digest."""
    return known.document.name in names or known.document.digest in names
