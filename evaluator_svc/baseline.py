"""Cached verdicts on the base model and on policies, because many trials are compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluator_svc.queries import Judged, QueryRunner, Subject
from sealkit.concurrency import SingleFlightCache, gather_or_cancel
from sealkit.types import Outcome, Query, Usage, Verdict


@dataclass(frozen=True)
class Answered:
    """Verdicts in the order of the queries, the usage of this request, and how many verdicts came from the cache."""

    verdicts: tuple[Verdict, ...]
    usage: Usage
    kept: int = 0

    @property
    def all_kept(self) -> bool:
        return self.kept == len(self.verdicts) > 0


class Baselines:
    """An LRU cache of `limit` verdicts, by everything that determines them (`QueryRunner.key`). Concurrent requests for
    the same verdict share one answer."""

    def __init__(self, limit: int) -> None:
        self._kept: SingleFlightCache[str, Judged] = SingleFlightCache(limit)

    async def ask_all(self, runner: QueryRunner, subject: Subject, queries: Sequence[Query]) -> Answered:
        """Raises what the backend raises."""
        got = await gather_or_cancel(*(self._ask(runner, subject, query) for query in queries))
        usage = sum((judged.usage for judged, fresh in got if fresh), Usage())
        return Answered(tuple(judged.verdict for judged, _ in got), usage, sum(not fresh for _, fresh in got))

    async def _ask(self, runner: QueryRunner, subject: Subject, query: Query) -> tuple[Judged, bool]:
        subject = await runner.answering(subject, query)  # versions with the same route share an answer
        key = runner.key(subject, query)
        judged, fresh = await self._kept.get(key, lambda: runner.ask(subject, query))
        if judged.verdict.outcome is Outcome.UNGRADED:
            self._kept.forget(key)  # the judge may succeed next time
        return judged, fresh
