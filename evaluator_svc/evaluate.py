"""One evaluation: the answers of the subject and of its baseline, forgetting, and KL to the base model. All is asked
concurrently, so that it is batched together and answered under the same conditions; with early stopping, the subject is
asked in several batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluator_svc.baseline import Answered, Baselines
from evaluator_svc.divergence import Divergences
from evaluator_svc.early_stopping import batches, in_order, is_over
from evaluator_svc.queries import BASE, QueryRunner, Subject
from evaluator_svc.retention import Pair, graded_pairs, known, measure
from sealkit.backends.base import Backend
from sealkit.concurrency import gather_or_cancel
from sealkit.errors import InvalidInput
from sealkit.judges import Judge, close_judge, load_judge
from sealkit.judges.settings import JudgeSettings
from sealkit.observability.metrics import CACHE_LOOKUPS, EARLY_STOPS, RETENTION_ACCURACY
from sealkit.types import (
    Divergence,
    EarlyStopping,
    Evaluation,
    EvaluationRequest,
    Query,
    Retention,
    Usage,
    accuracy,
)


class Evaluator:
    """Evaluates on one backend, and caches up to `kept_verdicts` verdicts on policies. Judges are created at first use,
    from `judge_settings` or else from the environment."""

    def __init__(self, backend: Backend, *, kept_verdicts: int, judge_settings: JudgeSettings | None = None) -> None:
        self._backend = backend
        self._limit = kept_verdicts
        self._kept = self._caches()
        self._judge_settings = judge_settings
        self._judges: dict[str, Judge] = {}

    async def close(self) -> None:
        """Closes the judges' connections."""
        for judge in self._judges.values():
            await close_judge(judge)

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Verdicts of subject and baseline, and the other measures of the request. After an early stop, the remaining
        queries are UNGRADED, "not asked", and only the earlier queries are measured besides. Raises UnknownJudge,
        InvalidConfig if the judge lacks a setting, InvalidInput if a query id is repeated, and the backend's errors."""
        began = time.perf_counter()
        for queries in (request.queries, request.earlier_queries, request.retention_queries):
            _check_unique(queries)
        runner = QueryRunner(self._backend, request.sampling, self._judge(request.judge))
        caches = self._caches() if request.fresh else self._kept
        subject, baseline, side = await _Session(request, runner, *caches).run()
        if request.queries:
            CACHE_LOOKUPS.labels("baseline", "hit" if baseline.all_kept else "miss").inc()
        usage = subject.usage + baseline.usage + side.usage
        return Evaluation(
            verdicts=in_order(request.queries, subject.verdicts),
            baseline_verdicts=baseline.verdicts,
            retention=side.retention,
            divergence=side.divergence,
            stopped_early=len(subject.verdicts) < len(request.queries),
            batch_variant_rate=self._backend.batch_variant_rate,
            judge_version=runner.judge.version,
            usage=usage.model_copy(update={"wall_seconds": time.perf_counter() - began}),
        )

    def _judge(self, name: str) -> Judge:
        if name not in self._judges:
            self._judges[name] = load_judge(name, self._judge_settings)
        return self._judges[name]

    def _caches(self) -> tuple[Baselines, Divergences]:
        return Baselines(self._limit), Divergences(self._backend, self._limit)


@dataclass(frozen=True)
class _SideMeasures:
    """The measures other than the queries, and their usage."""

    retention: Retention | None
    divergence: Divergence | None
    usage: Usage


@dataclass(frozen=True)
class _Session:
    """One request in progress."""

    request: EvaluationRequest
    runner: QueryRunner
    baselines: Baselines
    divergences: Divergences

    @property
    def subject(self) -> Subject:
        return Subject(self.request.policy.adapter, self.request.adapter)

    @property
    def baseline(self) -> Subject:
        return Subject(self.request.policy.adapter) if self.request.adapter else BASE

    async def run(self) -> tuple[Answered, Answered, _SideMeasures]:
        """The subject's and the baseline's answers to the queries, and the side measures."""
        queries, early_stopping = self.request.queries, self.request.early_stopping
        if early_stopping is None:
            (subject, baseline), side = await gather_or_cancel(self.compare(queries), self.side_measures())
        else:
            subject, baseline = await self.compare_until_futile(queries, early_stopping)
            side = await self.side_measures(stopped=len(subject.verdicts) < len(queries))
        return subject, baseline, side

    async def compare(self, queries: Sequence[Query]) -> tuple[Answered, Answered]:
        """Subject and baseline on all of the queries."""
        return await gather_or_cancel(self._ask(queries), self.baselines.ask_all(self.runner, self.baseline, queries))

    async def compare_until_futile(
        self, queries: Sequence[Query], early_stopping: EarlyStopping
    ) -> tuple[Answered, Answered]:
        """Asks the subject batch by batch until the test for futility stops it, and the baseline all of the queries:
        its answers serve all trials of a group, and the subject has to beat its accuracy on the same queries."""
        first, *rest = batches(queries, early_stopping, self.runner.sampling.seed) or [[]]
        subject, baseline = await gather_or_cancel(
            self._ask(first), self.baselines.ask_all(self.runner, self.baseline, queries)
        )
        to_beat = accuracy(baseline.verdicts) if early_stopping.to_beat is None else early_stopping.to_beat
        for batch in rest:
            if to_beat is not None and is_over(subject.verdicts, len(queries), to_beat, early_stopping):
                EARLY_STOPS.labels("stopped").inc()
                return subject, baseline
            more = await self._ask(batch)
            subject = Answered(subject.verdicts + more.verdicts, subject.usage + more.usage)
        EARLY_STOPS.labels("finished").inc()
        return subject, baseline

    async def side_measures(self, *, stopped: bool = False) -> _SideMeasures:
        """Retention and divergence, if requested; after an early stop, only retention on the earlier queries."""
        suite = () if stopped else self.request.retention_queries
        (retention, usage), divergence = await gather_or_cancel(
            self._retention(suite), self._divergence(wanted=self.request.measure_divergence and not stopped)
        )
        return _SideMeasures(retention, divergence, usage)

    async def _retention(self, suite: Sequence[Query]) -> tuple[Retention | None, Usage]:
        (of_suite, usage), (of_earlier, more) = await gather_or_cancel(
            self._suite(suite), self._pairs(self.request.earlier_queries)
        )
        pairs = [*of_suite, *(pair for pair in of_earlier if pair.before)]
        # A suite without usable queries has a Retention with `kept` 0; without a suite there is none.
        retention = measure(pairs, self.runner.backend.batch_variant_rate) if pairs or suite else None
        return retention, usage + more

    async def _suite(self, suite: Sequence[Query]) -> tuple[list[Pair], Usage]:
        kept, usage = await known(self.baselines, self.runner, suite, self.request.retention_limit)
        pairs, more = await self._pairs(kept)
        if pairs:
            RETENTION_ACCURACY.observe(fmean(pair.after for pair in pairs))
        return pairs, usage + more

    async def _pairs(self, queries: Sequence[Query]) -> tuple[list[Pair], Usage]:
        after, before = await self.compare(queries)
        return graded_pairs(before.verdicts, after.verdicts), before.usage + after.usage

    async def _divergence(self, *, wanted: bool) -> Divergence | None:
        return await self.divergences.measure(self.subject, self.request.queries) if wanted else None

    async def _ask(self, queries: Sequence[Query]) -> Answered:
        """Verdicts on a policy are cached, because it is the next trial's baseline; those on a trial are not needed
        again."""
        if self.subject.trial is None:
            return await self.baselines.ask_all(self.runner, self.subject, queries)
        judged = await self.runner.ask_all(self.subject, queries)
        return Answered(tuple(j.verdict for j in judged), sum((j.usage for j in judged), Usage()))


def _check_unique(queries: Sequence[Query]) -> None:
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            raise InvalidInput(f"query {query.query_id!r} is repeated in its set; ids must be unique")
        seen.add(query.query_id)
