"""What a judge is: whether a free-form answer to a question agrees with the gold answer."""

from dataclasses import dataclass
from typing import Protocol

from sealkit.types import Outcome


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict.

    Attributes:
        outcome: CORRECT, INCORRECT, or UNGRADED where the judge could not tell; the last is counted apart, never
            taken for wrong.
        reason: One short phrase for a person; not part of any contract.
    """

    outcome: Outcome
    reason: str = ""


class Judge(Protocol):
    """Grades one answer at a time; safe to call concurrently.

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

    async def judge(self, question: str, gold: str, answer: str) -> Judgement:
        """Judge `answer` to `question` against `gold`; failure is an UNGRADED judgement, not an exception."""
        ...
