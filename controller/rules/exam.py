"""Generated exams: queries and gold answers that are generated for a passage that has none.

    write    several lists of questions on the passage; besides them the domain makes some of the text itself, with
             their gold answers
    answer   each question with the passage in the prompt: once greedily, which is the gold answer if there is none yet;
             then several times sampled
    keep     those whose answers agree with the gold answer, which the base model without the passage does not know, and
             which ask different facts

The run's judge decides what agrees and what is known. Everything is sampled with seeds that derive from names, so an
exam that is made again is the same one. What is stored says of every question why it was kept or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from controller.db.database import storable
from controller.retry import gather_or_cancel, retry_until_available
from controller.rules.setup import BASE, Setup
from controller.rules.template import templated
from controller.services import Services
from sealkit import limits
from sealkit.domains.base import Context, Examines, ExamItem
from sealkit.resources import Editor
from sealkit.types import EvaluationRequest, Outcome, Prompt, Query, Sampling, Usage, Value, Verdict, seed_of

_CANDIDATES = 4
"""Questions from the lists that are tried, and blanks, each as a multiple of the questions that an exam may have."""


class ExamQuestion(Value):
    """A question that was tried. `agreed`: share of the sampled answers that agree with the gold answer; `fault`: why
    it is not in the exam; empty: it is."""

    question: str
    answer: str
    agreed: float | None = None
    known: bool | None = None
    """Whether the base model answers it right without the passage."""
    fault: str = ""


class Exam(Value):
    """How a context's exam was made. `editor` wrote the questions."""

    editor: str
    questions: tuple[ExamQuestion, ...] = ()

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Questions and gold answers of the exam."""
        return [(one.question, one.answer) for one in self.questions if not one.fault]


async def examined(setup: Setup, services: Services, context: Context) -> tuple[Context, Exam, Usage]:
    """A context with its exam, how it was made, and the usage. With fewer questions than `exam.least` the context has
    no query. An unavailable service is waited for; raises its other errors."""
    domain, config = setup.domain, setup.config.exam
    assert isinstance(domain, Examines)  # checked when the run was created
    requests = _Requests(setup, services, context)
    most = config.questions * _CANDIDATES
    blanks = domain.exam_blanks(context)[:most] if config.blanks else []
    items = [*domain.exam_items(context, await requests.written())[:most], *blanks]
    answers = await requests.answered(items)
    found = [
        ExamQuestion(question=item.question, answer=answer, fault=domain.exam_fault(context, item.question, answer))
        for item, answer in zip(items, answers, strict=True)
    ]
    fit = [i for i, one in enumerate(found) if not one.fault]
    tried = [(items[i], answers[i]) for i in fit]
    agreed = await requests.agreement(tried)
    known = await requests.known(tried)
    for i, share, knows in zip(fit, agreed, known, strict=True):
        unsure = "it is not answered with the text" if items[i].answer else "its answers do not agree"
        fault = unsure if share < config.agreement else "it is known" if knows else ""
        found[i] = found[i].changed(agreed=share, known=bool(knows), fault=fault)
    exam = Exam(editor=config.editor, questions=_distinct(domain, context, found, config.overlap, config.questions))
    kept = exam.kept if len(exam.kept) >= config.least else []
    return domain.with_exam(context, kept, config.overlap), exam, requests.usage


def _distinct(
    domain: Examines, context: Context, found: Sequence[ExamQuestion], overlap: float, most: int
) -> tuple[ExamQuestion, ...]:
    """The questions with a fault for those that ask the same as one before them, or are too many."""
    kept: list[tuple[str, str]] = []
    marked = []
    for one in found:
        fact = one.question, one.answer
        fault = one.fault
        if not fault and any(domain.overlap(context, fact, other) > overlap for other in kept):
            fault = "another one asks the same"
        if not fault and len(kept) >= most:
            fault = "the exam is full"
        if not fault:
            kept.append(fact)
        marked.append(one.changed(fault=fault))
    return tuple(marked)


class _Requests:
    """The requests for one context's exam. `usage` is the sum of what they took."""

    def __init__(self, setup: Setup, services: Services, context: Context) -> None:
        self._setup = setup
        self._services = services
        self._context = context
        self.usage = Usage()

    async def written(self) -> list[str]:
        """The lists of questions."""
        config, domain = self._setup.config.exam, self._setup.domain
        assert isinstance(domain, Examines)
        if not config.samples:
            return []
        prompt = templated(domain.exam_prompt(self._context), self._setup.config.editor.chat_template_kwargs)
        outside = "" if config.editor == Editor.BASE else config.editor
        asked = [(self._context.context_id, prompt, list(range(config.samples)))]
        said = await self._sampled(asked, self._seeded(config.sampling, "questions"), outside)
        return [said[self._context.context_id, i] for i in range(config.samples)]

    async def answered(self, items: Sequence[ExamItem]) -> list[str]:
        """The gold answers: the domain's, or the greedy answer with the passage in the prompt."""
        unknown = {i: item for i, item in enumerate(items) if not item.answer}
        asked = [(f"exam-{i}", self._question(item.open_book), [0]) for i, item in unknown.items()]
        said = await self._sampled(asked, self._greedy, "") if asked else {}
        return [item.answer or said[f"exam-{i}", 0].strip() for i, item in enumerate(items)]

    async def agreement(self, asked: Sequence[tuple[ExamItem, str]]) -> list[float]:
        """Share of further answers with the passage that agree with each gold answer. A model's gold answer is right if
        others agree with it, so these are sampled; the domain's is, so the greedy answer says whether it is found."""
        count = self._setup.config.exam.answers - 1
        queries = self._queries([(item.question, item.open_book, gold) for item, gold in asked], "open-book")
        given = [query for query, (item, _) in zip(queries, asked, strict=True) if item.answer]
        guessed = [query for query, (item, _) in zip(queries, asked, strict=True) if not item.answer]
        samplings = [self._seeded(self._setup.config.exam.answering, f"answer {i}") for i in range(count)]
        graded = await gather_or_cancel(
            *(self._judged(guessed, sampling) for sampling in samplings), self._judged(given, self._greedy)
        )
        right = Counter(v.query_id for verdicts in graded for v in verdicts if v.outcome is Outcome.CORRECT)
        return [
            right[query.query_id] / (1 if item.answer else count)
            for query, (item, _) in zip(queries, asked, strict=True)
        ]

    async def known(self, asked: Sequence[tuple[ExamItem, str]]) -> list[bool]:
        """Whether the base model answers each right without the passage; also if that could not be graded."""
        queries = self._queries([(item.question, item.prompt, gold) for item, gold in asked], "closed-book")
        graded = await self._judged(queries, self._setup.config.evaluation.sampling)
        return [verdict.outcome is not Outcome.INCORRECT for verdict in graded]

    @property
    def _greedy(self) -> Sampling:
        return self._setup.config.exam.answering.changed(temperature=0.0, top_p=1.0, seed=0)

    def _queries(self, asked: Sequence[tuple[str, Prompt, str]], kind: str) -> tuple[Query, ...]:
        return tuple(
            Query(
                query_id=f"{self._context.context_id}/{kind}-{i}"[-limits.QUERY_ID_CHARACTERS :],
                question=question,
                gold=gold,
                prompt=self._question(prompt),
            )
            for i, (question, prompt, gold) in enumerate(asked)
        )

    async def _judged(self, queries: Sequence[Query], sampling: Sampling) -> tuple[Verdict, ...]:
        if not queries:
            return ()
        request = EvaluationRequest(policy=BASE, queries=tuple(queries), sampling=sampling, judge=self._setup.judge)
        answer = await retry_until_available(lambda: self._services.evaluator.evaluate(request), doing="an exam")
        self.usage += answer.usage
        return answer.verdicts

    async def _sampled(
        self, asked: Sequence[tuple[str, Prompt, Sequence[int]]], sampling: Sampling, editor: str
    ) -> dict[tuple[str, int], str]:
        async def ask() -> dict[tuple[str, int], str]:
            said = [one async for one in self._services.generator.sample(BASE, asked, sampling, editor=editor)]
            self.usage = sum((one.usage for one in said), self.usage)
            return {(one.context_id, one.index): storable(one.text) for one in said}

        return await retry_until_available(ask, doing="an exam")

    def _question(self, prompt: Prompt) -> Prompt:
        return templated(prompt, self._setup.config.evaluation.chat_template_kwargs)

    def _seeded(self, sampling: Sampling, what: str) -> Sampling:
        return sampling.changed(seed=seed_of(self._setup.config.seed, "exam", self._context.context_id, what))
