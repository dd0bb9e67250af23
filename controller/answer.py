"""Answers of aliases: the policy is looked up once, then an evaluator's stream is passed on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from controller.db import answers, quotas
from controller.db.access import AccessScope
from controller.db.answers import Version
from controller.db.database import Database
from controller.rules.about import documents_about
from controller.rules.setup import domain_of
from sealkit.domains.base import Examines
from sealkit.errors import AdapterCorrupt, AdapterNotFound, SealError, Unavailable
from sealkit.observability.metrics import ANSWER_FIRST_SECONDS, ANSWER_REQUESTS, ANSWER_SECONDS, ANSWER_TOKENS
from sealkit.resources import AnswerAbout, AnswerBegun, AnswerUpdate
from sealkit.rpc.protocols import Evaluator
from sealkit.types import AnswerDelta, AnswerEnd, Prompt, Sampling

log = structlog.get_logger(__name__)


class Answers:
    """Streams answers over the evaluators' replicas."""

    def __init__(self, database: Database, evaluator: Evaluator, plugins: Sequence[str] = ()) -> None:
        self._database = database
        self._evaluator = evaluator
        self._plugins = plugins

    async def stream(
        self, scope: AccessScope, alias: str, prompt: Prompt, sampling: Sampling, *, with_documents: bool = False
    ) -> AsyncGenerator[AnswerUpdate, None]:
        """The answer of the policy that `aliases/{id}` points to now, of the base model if `alias` is empty. The whole
        stream is that policy's: its adapter is named by digest, and an answer that has begun is never continued by
        another evaluator. Closing the generator ends the decoding. `with_documents`: an AnswerAbout comes before
        the end.

        Raises UnknownAlias, QuotaExceeded, and what an evaluator raises; if the adapter of a document is not in the
        store, the error names the document.
        """
        version = await self._database.read(answers.version_of, scope, alias)
        metered = _Meter("alias" if alias else "base")
        try:
            async with aclosing(self._of(version, prompt, sampling)) as updates:
                said = ""
                async for update in updates:
                    metered.see(update)
                    if isinstance(update, AnswerDelta):
                        said += update.text
                    if isinstance(update, AnswerEnd) and with_documents:
                        yield await self._about(version, prompt.user, said)
                    yield update
        except SealError as error:
            metered.result = error.reason
            if isinstance(error, AdapterNotFound | AdapterCorrupt) and alias:
                await self._name_document(version, error)
            raise
        finally:
            metered.close()
            await self._charge(scope.home, metered.device_seconds)

    async def _of(self, version: Version, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[AnswerUpdate, None]:
        begun: AnswerBegun | None = version.begun
        asked = self._evaluator.answer(version.policy, prompt, sampling, base_model=version.base_model)
        async with aclosing(asked) as updates:
            async for update in updates:
                if begun is not None:
                    yield begun
                    begun = None
                yield update

    async def _name_document(self, version: Version, error: AdapterNotFound | AdapterCorrupt) -> None:
        """Raises the error with the document that the version learned with the adapter, if there is one."""
        digest = error.metadata.get("digest", "")
        if name := await self._database.read(answers.document_of, version.begun.policy, digest):
            raise type(error)(
                f"{version.begun.alias} cannot answer what is about {name}, only other prompts: {error.message}. Learn "
                "it again on the alias (`seal learn`): that trains its adapter again",
                metadata={**error.metadata, "document": name},
            ) from error

    async def _about(self, version: Version, question: str, said: str) -> AnswerAbout:
        if not version.begun.policy:
            return AnswerAbout()
        config, known = await self._database.read(answers.trained_on, version.begun.policy)
        domain = domain_of(config, self._plugins)
        if not isinstance(domain, Examines):
            return AnswerAbout()
        passages = [(document, list(map(domain.passage_text, passages))) for document, passages in known]
        return AnswerAbout(documents=await asyncio.to_thread(documents_about, (question, said), passages))

    async def _charge(self, tenant: str, device_seconds: float) -> None:
        if not (tenant and device_seconds):
            return
        try:
            await self._database.write(quotas.spend, tenant, device_seconds)
        except Unavailable as error:  # the answer was given; without a database no further one is
            log.warning("answer not charged", tenant=tenant, device_seconds=device_seconds, message=error.message)


class _Meter:
    """Measures one answer."""

    def __init__(self, kind: str) -> None:
        self.result = "CANCELLED"
        self._kind = kind
        self._asked = time.perf_counter()
        self._first: float | None = None
        self._end: AnswerEnd | None = None

    def see(self, update: AnswerUpdate) -> None:
        if isinstance(update, AnswerDelta) and self._first is None:
            self._first = time.perf_counter()
            ANSWER_FIRST_SECONDS.labels(self._kind).observe(self._first - self._asked)
        elif isinstance(update, AnswerEnd):
            self._end, self.result = update, "OK"

    @property
    def device_seconds(self) -> float:
        """As the evaluator counted them. Of an answer that was cut off, the time since its first piece, which is at
        least its share of the device."""
        if self._end is not None:
            return self._end.usage.device_seconds
        return 0.0 if self._first is None else time.perf_counter() - self._first

    def close(self) -> None:
        ANSWER_REQUESTS.labels(self._kind, self.result).inc()
        if self._end is not None:
            ANSWER_SECONDS.labels(self._kind).observe(time.perf_counter() - self._asked)
            ANSWER_TOKENS.labels(self._kind, "prompt").inc(self._end.usage.prompt_tokens)
            ANSWER_TOKENS.labels(self._kind, "completion").inc(self._end.usage.completion_tokens)
