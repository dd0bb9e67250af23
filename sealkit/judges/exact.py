"""Exact match after normalising: for tasks whose answer is one literal, such as the retention suite's sums."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sealkit.judges.base import Answer, Judgement
from sealkit.types import Outcome
from sealkit.words.comparable import plain

_ARTICLE = re.compile(r"^(?:an?|the)\s+")
_NOT_TEXT = re.compile(r"[^\w\s.+\-/]|(?<!\d)\.|\.(?!\d)|(?<!\d)/")
_NO_SIGN = re.compile(r"-(?!\d)")
_LONGEST = 10_000
"""Characters of an answer that are read: every line of it is normalised."""


@dataclass(frozen=True, slots=True)
class ExactJudge:
    """The answer is the gold, up to case, accents, punctuation, a leading article and the spelling of numbers.

    A sign or a decimal point is part of a number: "-5" is not "5", nor "1.5" "15". The first non-empty line of the
    answer counts, because models often continue after a one-word answer.
    """

    name: str = "exact"
    version: str = "4"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:  # noqa: ARG002 - protocol
        """Compare the first answer with `gold`; the question is not used. UNGRADED if the gold is empty."""
        answer = answers[0].text[:_LONGEST]
        wanted = normalised(gold)
        if not wanted:
            return Judgement(Outcome.UNGRADED, "the gold answer holds no word")
        first_line = next((line for line in answer.splitlines() if normalised(line)), "")
        if wanted in (normalised(first_line), normalised(answer)):
            return Judgement(Outcome.CORRECT, "equal")
        return Judgement(Outcome.INCORRECT, "not equal")


def normalised(text: str) -> str:
    """Return the comparable form of a short answer."""
    # An underscore separates words here, but is a letter for the regular expressions below.
    bare = _NO_SIGN.sub(" ", _NOT_TEXT.sub(" ", plain(text.replace("_", " "))))
    return _ARTICLE.sub("", " ".join(bare.split()))
