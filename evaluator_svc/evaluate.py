"""One evaluation: the subject's answers beside its baseline's, and what it forgot. Subject, baseline and retention are
asked at once, so that they share batches and are answered under the same conditions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from evaluator_svc.baseline import Answered, Baselines
from evaluator_svc.exam import BASE, Exam, Subject
from evaluator_svc.retention import known, measure
from sealkit.backends.base import Backend
from sealkit.concurrency import together
from sealkit.errors import InvalidInput
from sealkit.judges import load_judge
from sealkit.telemetry import BASELINE_LOOKUPS, RETENTION_ACCURACY
from sealkit.types import AdapterRef, Evaluation, Policy, Query, Retention, Sampling, Usage


class Evaluator:
    """Evaluates on one backend, and keeps up to `kept_verdicts` verdicts on policies."""

    def __init__(self, backend: Backend, *, kept_verdicts: int) -> None:
        self._backend = backend
        self._baselines = Baselines(kept_verdicts)

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
    ) -> Evaluation:
        """The subject is the policy with `adapter`, its baseline the policy alone; without an adapter, the policy
        alone and the base model. Raises UnknownJudge, InvalidInput where a query comes twice, and what the backend
        raises."""
        began = time.perf_counter()
        exam = Exam(self._backend, sampling, load_judge(judge))
        _unlike(queries)
        _unlike(retention_queries)
        subject = Subject(policy.adapter, adapter)
        baseline = Subject(policy.adapter) if adapter else BASE
        (answers, base), (retention, used) = await together(
            self._compare(exam, subject, baseline, queries),
            self._retention(exam, subject, baseline, retention_queries, retention_limit),
        )
        if queries:
            BASELINE_LOOKUPS.labels("hit" if base.all_kept else "miss").inc()
        usage = answers.usage + base.usage + used
        return Evaluation(
            verdicts=answers.verdicts,
            baseline_verdicts=base.verdicts,
            baseline_cached=base.all_kept,
            retention=retention,
            judge_version=exam.judge.version,
            usage=usage.model_copy(update={"wall_seconds": time.perf_counter() - began}),
        )

    async def _compare(
        self, exam: Exam, subject: Subject, baseline: Subject, queries: Sequence[Query]
    ) -> tuple[Answered, Answered]:
        return await together(self._ask_all(exam, subject, queries), self._baselines.ask_all(exam, baseline, queries))

    async def _retention(
        self, exam: Exam, subject: Subject, baseline: Subject, suite: Sequence[Query], limit: int
    ) -> tuple[Retention | None, Usage]:
        if not suite:
            return None, Usage()
        kept, used = await known(self._baselines, exam, suite, limit)
        after, before = await self._compare(exam, subject, baseline, kept)
        retention = measure(before.verdicts, after.verdicts)
        if retention.kept:
            RETENTION_ACCURACY.observe(retention.accuracy_after)
        return retention, used + before.usage + after.usage

    async def _ask_all(self, exam: Exam, subject: Subject, queries: Sequence[Query]) -> Answered:
        """Verdicts on a policy are kept: it is the next trial's baseline. Those on a trial nobody asks for again."""
        if subject.trial is None:
            return await self._baselines.ask_all(exam, subject, queries)
        judged = await exam.ask_all(subject, queries)
        return Answered(tuple(j.verdict for j in judged), sum((j.usage for j in judged), Usage()))


def _unlike(queries: Sequence[Query]) -> None:
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            raise InvalidInput(f"query {query.query_id!r} comes twice in its set; ids must be unique")
        seen.add(query.query_id)
