"""The judge interface: whether a free-form answer to a question agrees with the gold answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sealkit.types import Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one form of the query. `view`: the label of `sealkit.types.View`, empty for the query's own
    prompt."""

    text: str
    view: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict.

    Attributes:
        outcome: CORRECT, INCORRECT, or UNGRADED if the judge could not decide. Ungraded verdicts are counted
            separately, never as incorrect.
        reason: A short explanation; not part of any contract.
        answer: The judged answer, if several were merged into one; empty: the first answer.
    """

    outcome: Outcome
    reason: str = ""
    answer: str = ""


class Judge(Protocol):
    """Grades one query at a time; safe to call concurrently.

    `name` and `version` are stored with every verdict, because verdicts of different versions are not comparable.
    """

    @property
    def name(self) -> str:
        """The name for `load_judge`."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever outcomes can change."""
        ...

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        """Judge the answers to `question` against `gold`: the first is to the query's own prompt, the others are to its
        views, in their order. Failure is an UNGRADED judgement, not an exception. For a question with several gold
        answers see `judge_any`."""
        ...


async def judge_any(judge: Judge, question: str, golds: Sequence[str], answers: Sequence[Answer]) -> Judgement:
    """Judge the answers against each gold answer in turn, until one says CORRECT: any of them is right.

    Without a CORRECT the judgement is UNGRADED if one of them is, else INCORRECT, with the first one's reason. A gold
    answer without a letter or digit, which no judge can grade, is left out if there are others.
    """
    usable = [gold for gold in golds if any(map(str.isalnum, gold))] or golds[:1]
    failed: list[Judgement] = []
    for gold in usable:
        judgement = await judge.judge(question, gold, answers)
        if judgement.outcome is Outcome.CORRECT:
            return judgement
        failed.append(judgement)
    return next((one for one in failed if one.outcome is Outcome.UNGRADED), failed[0])
