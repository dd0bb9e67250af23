"""What a judge is: whether a free-form answer to a question agrees with the gold answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sealkit.types import Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one way of asking. `view`: the label of `sealkit.types.View`, empty for the query's own
    prompt."""

    text: str
    view: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict.

    Attributes:
        outcome: CORRECT, INCORRECT, or UNGRADED where the judge could not tell; the last is counted apart, never
            taken for wrong.
        reason: One short phrase for a person; not part of any contract.
        answer: What was judged, where several answers were made one; empty: the first answer.
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
        """What `load_judge` knows it by."""
        ...

    @property
    def version(self) -> str:
        """Changes with whatever changes an outcome."""
        ...

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        """Judge the answers to `question` against `gold`: the first is to the query's own prompt, the others are to its
        views, in their order. Failure is an UNGRADED judgement, not an exception."""
        ...
