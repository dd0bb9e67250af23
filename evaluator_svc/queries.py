"""Asks and judges queries, with the same sampling and the same judge for every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealkit.backends.base import Backend, Generation, count_tokens
from sealkit.concurrency import gather_or_cancel
from sealkit.errors import SealError
from sealkit.judges import Answer, Judge, Judgement, judge_any
from sealkit.observability.metrics import ANSWERS
from sealkit.reasoning import Said, no_answer
from sealkit.types import (
    NOT_ANSWERED,
    AdapterRef,
    Outcome,
    Policy,
    Prompt,
    Query,
    Sampling,
    Usage,
    Verdict,
    digest_of,
    seed_of,
)


@dataclass(frozen=True)
class Subject:
    """The model that answers: the base model, optionally with a policy's adapter and a trial's adapter."""

    policy: AdapterRef | None = None
    trial: AdapterRef | None = None


BASE = Subject()


@dataclass(frozen=True)
class Judged:
    """A verdict and its usage."""

    verdict: Verdict
    usage: Usage


@dataclass(frozen=True)
class QueryRunner:
    backend: Backend
    sampling: Sampling
    judge: Judge

    def key(self, subject: Subject, query: Query) -> str:
        """A digest of everything that determines a verdict."""
        adapters = [ref.digest if ref else "" for ref in (subject.policy, subject.trial)]
        judge = (self.judge.name, self.judge.version)
        return digest_of(self.backend.info.digest, adapters, query, self.sampling, judge)

    async def answering(self, subject: Subject, query: Query) -> Subject:
        """The model that answers a query: the subject, or if its policy is routed, the one that the query gets."""
        if subject.policy is None or subject.trial is not None:
            return subject
        policy = Policy(name="subject", adapter=subject.policy)
        prompts = (query.prompt, *(view.prompt for view in query.views))
        routed = await gather_or_cancel(*(self.backend.route(prompt, policy) for prompt in prompts))
        adapters = {one.adapter if one else None for one in routed}
        return Subject(adapters.pop()) if len(adapters) == 1 else subject

    async def ask(self, subject: Subject, query: Query) -> Judged:
        """Asks a query in all its views and judges the answers; UNGRADED if the judge fails. The verdict keeps the
        first answer's reasoning. Raises the backend's errors."""
        ways = [("", query.prompt), *((view.label, view.prompt) for view in query.views)]
        generations = await gather_or_cancel(*(self._answer(subject, query, prompt) for _, prompt in ways))
        usage = sum((got.usage for got in generations), Usage())
        judgement = await self._judged(query, generations, [view for view, _ in ways])
        ANSWERS.labels(judgement.outcome.value).inc()
        verdict = Verdict(
            query_id=query.query_id,
            answer=judgement.answer or generations[0].text,
            outcome=judgement.outcome,
            reason=judgement.reason,
            reasoning=generations[0].reasoning,
        )
        return Judged(verdict, usage)

    async def _judged(self, query: Query, generations: Sequence[Generation], views: Sequence[str]) -> Judgement:
        """Of the texts alone. INCORRECT, without the judge, if none is there because all ended in their reasoning."""
        unanswered = [_no_answer(got) for got in generations]
        if all(unanswered):
            return Judgement(Outcome.INCORRECT, NOT_ANSWERED + unanswered[0])
        answers = [Answer(got.text, view) for got, view in zip(generations, views, strict=True)]
        try:
            return await judge_any(self.judge, query.question, query.golds, answers)
        except SealError as fault:
            return Judgement(Outcome.UNGRADED, f"{fault.reason}: {fault.message}")

    async def _answer(self, subject: Subject, query: Query, prompt: Prompt) -> Generation:
        # Common random numbers: baseline and subject have the same seed, which reduces the variance of their
        # difference.
        sampling = self.sampling.model_copy(update={"seed": seed_of(self.sampling.seed, query.query_id)})
        policy = Policy(name="subject", adapter=subject.policy)
        got = await self.backend.generate(prompt, sampling, policy=policy, adapter=subject.trial)
        count_tokens(got.usage)
        return got

    async def ask_all(self, subject: Subject, queries: Sequence[Query]) -> tuple[Judged, ...]:
        """Asks all concurrently; verdicts in the order of the queries. The first failure cancels the others."""
        return await gather_or_cancel(*(self.ask(subject, query) for query in queries))


def _no_answer(got: Generation) -> str:
    return no_answer(Said(got.text, got.reasoning), "evaluation.sampling.max_tokens", "evaluation.chat_template_kwargs")
