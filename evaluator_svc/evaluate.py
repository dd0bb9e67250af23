"""One evaluation: the subject's answers beside its baseline's, what it forgot, and how far it moved. All of it is asked
at once, so that it shares batches and is answered under the same conditions; except under early stopping, which asks in
turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from evaluator_svc.baseline import Answered, Baselines
from evaluator_svc.divergence import Divergences
from evaluator_svc.early_stopping import batches, in_order, is_over
from evaluator_svc.exam import BASE, Exam, Subject
from evaluator_svc.retention import known, measure
from sealkit.backends.base import Backend
from sealkit.concurrency import gather_or_cancel
from sealkit.errors import InvalidInput
from sealkit.judges import Judge, close_judge, load_judge
from sealkit.judges.settings import JudgeSettings
from sealkit.observability.metrics import CACHE_LOOKUPS, EARLY_STOPS, RETENTION_ACCURACY
from sealkit.types import (
    AdapterRef,
    Divergence,
    EarlyStopping,
    Evaluation,
    Policy,
    Query,
    Retention,
    Sampling,
    Usage,
    accuracy,
)


class Evaluator:
    """Evaluates on one backend, and keeps up to `kept_verdicts` verdicts on policies. Judges are made by
    `judge_settings`, else by the environment, when they are first asked for."""

    def __init__(self, backend: Backend, *, kept_verdicts: int, judge_settings: JudgeSettings | None = None) -> None:
        self._backend = backend
        self._limit = kept_verdicts
        self._kept = self._caches()
        self._judge_settings = judge_settings
        self._judges: dict[str, Judge] = {}

    async def close(self) -> None:
        """Ends what the judges hold open."""
        for judge in self._judges.values():
            await close_judge(judge)

    async def evaluate(
        self,
        policy: Policy,
        adapter: AdapterRef | None,
        queries: Sequence[Query],
        *,
        sampling: Sampling,
        judge: str,
        retention_queries: Sequence[Query] = (),
        retention_limit: int = 0,
        measure_divergence: bool = False,
        early_stopping: EarlyStopping | None = None,
        fresh: bool = False,
    ) -> Evaluation:
        """The subject is the policy with `adapter`, its baseline the policy alone; without an adapter, the policy
        alone and the base model. An evaluation that stops early leaves queries UNGRADED, "not asked", and measures
        nothing
        more: no retention, no divergence. Raises UnknownJudge, InvalidConfig where the judge lacks a setting,
        InvalidInput where a query comes twice, and what the backend raises."""
        began = time.perf_counter()
        _unlike(queries)
        _unlike(retention_queries)
        exam = Exam(self._backend, sampling, self._judge(judge))
        subject = Subject(policy.adapter, adapter)
        baselines, divergences = self._caches() if fresh else self._kept
        sitting = _Sitting(exam, subject, Subject(policy.adapter) if adapter else BASE, baselines, divergences)
        if early_stopping is None:
            (answers, base), beside = await gather_or_cancel(
                sitting.compare(queries),
                sitting.beside(queries, retention_queries, retention_limit, measure_divergence),
            )
        else:
            answers, base = await sitting.early_stopping(queries, early_stopping)
            beside = _Beside()
            if len(answers.verdicts) == len(queries):
                beside = await sitting.beside(queries, retention_queries, retention_limit, measure_divergence)
        if queries:
            CACHE_LOOKUPS.labels("baseline", "hit" if base.all_kept else "miss").inc()
        usage = answers.usage + base.usage + beside.usage
        return Evaluation(
            verdicts=in_order(queries, answers.verdicts),
            baseline_verdicts=base.verdicts,
            baseline_cached=base.all_kept,
            retention=beside.retention,
            divergence=beside.divergence,
            stopped_early=len(answers.verdicts) < len(queries),
            batch_variant_rate=self._backend.batch_variant_rate,
            judge_version=exam.judge.version,
            usage=usage.model_copy(update={"wall_seconds": time.perf_counter() - began}),
        )

    def _judge(self, name: str) -> Judge:
        if name not in self._judges:
            self._judges[name] = load_judge(name, self._judge_settings)
        return self._judges[name]

    def _caches(self) -> tuple[Baselines, Divergences]:
        return Baselines(self._limit), Divergences(self._backend, self._limit)


@dataclass(frozen=True)
class _Beside:
    """What is measured beside the queries, and what it took."""

    retention: Retention | None = None
    divergence: Divergence | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class _Sitting:
    """Subject and baseline at one exam."""

    exam: Exam
    subject: Subject
    baseline: Subject
    baselines: Baselines
    divergences: Divergences

    async def compare(self, queries: Sequence[Query]) -> tuple[Answered, Answered]:
        """Subject and baseline on all of the queries."""
        return await gather_or_cancel(self._ask(queries), self.baselines.ask_all(self.exam, self.baseline, queries))

    async def early_stopping(
        self, queries: Sequence[Query], early_stopping: EarlyStopping
    ) -> tuple[Answered, Answered]:
        """The subject batch by batch until it is hopeless, the baseline on all of the queries: it is asked once
        for all trials of a group, and what has to be beaten is its accuracy on the same queries."""
        first, *rest = batches(queries, early_stopping, self.exam.sampling.seed) or [[]]
        answers, base = await gather_or_cancel(
            self._ask(first), self.baselines.ask_all(self.exam, self.baseline, queries)
        )
        to_beat = accuracy(base.verdicts) if early_stopping.to_beat is None else early_stopping.to_beat
        for batch in rest:
            if to_beat is not None and is_over(answers.verdicts, len(queries), to_beat, early_stopping):
                EARLY_STOPS.labels("stopped").inc()
                return answers, base
            more = await self._ask(batch)
            answers = Answered(answers.verdicts + more.verdicts, answers.usage + more.usage)
        EARLY_STOPS.labels("finished").inc()
        return answers, base

    async def beside(
        self, queries: Sequence[Query], suite: Sequence[Query], limit: int, measure_divergence: bool
    ) -> _Beside:
        """Retention on the suite, and divergence where it is wanted."""
        if not measure_divergence:
            return await self._retention(suite, limit)
        beside, divergence = await gather_or_cancel(
            self._retention(suite, limit), self.divergences.measure(self.subject, queries)
        )
        return _Beside(beside.retention, divergence, beside.usage)

    async def _retention(self, suite: Sequence[Query], limit: int) -> _Beside:
        if not suite:
            return _Beside()
        kept, used = await known(self.baselines, self.exam, suite, limit)
        after, before = await self.compare(kept)
        retention = measure(before.verdicts, after.verdicts, self.exam.backend.batch_variant_rate)
        if retention.kept:
            RETENTION_ACCURACY.observe(retention.accuracy_after)
        return _Beside(retention, usage=used + before.usage + after.usage)

    async def _ask(self, queries: Sequence[Query]) -> Answered:
        """Verdicts on a policy are kept: it is the next trial's baseline. Those on a trial nobody asks for again."""
        if self.subject.trial is None:
            return await self.baselines.ask_all(self.exam, self.subject, queries)
        judged = await self.exam.ask_all(self.subject, queries)
        return Answered(tuple(j.verdict for j in judged), sum((j.usage for j in judged), Usage()))


def _unlike(queries: Sequence[Query]) -> None:
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            raise InvalidInput(f"query {query.query_id!r} comes twice in its set; ids must be unique")
        seen.add(query.query_id)
