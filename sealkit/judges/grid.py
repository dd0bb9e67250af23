"""Grids: the transform of each view's answer is inverted, all answers vote, and the two grids with most votes are the
two attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sealkit.domains.arc.grids import GridStyle, MalformedGrid, from_text, to_text
from sealkit.domains.arc.transforms import VIEWS, Transform
from sealkit.judges.base import Answer, Judgement
from sealkit.judges.content import ContentJudge
from sealkit.types import Outcome


class GridJudge:
    """ARC's rule: a task is solved if one of `attempts` grids equals the gold one, cell by cell.

    A view's label is the name of its transform, and after a slash any other change. An answer that is not a grid has no
    vote; if none is a grid, the verdict is incorrect, with the first answer's fault. A gold answer that is not a JSON
    list is the text of a retention question, and is graded by the judge `content`.
    """

    name = "grid"

    def __init__(self, attempts: int = 2) -> None:
        self._attempts = attempts
        self._text = ContentJudge()
        self.version = f"1-{attempts}-{self._text.version}"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        """UNGRADED if the gold answer is a malformed grid or a view has an unknown name."""
        if not gold.lstrip().startswith("["):
            return await self._text.judge(question, gold, answers)
        votes: Counter[str] = Counter()
        faults: list[str] = []
        try:
            right = to_text(from_text(gold), GridStyle.LIST)
        except MalformedGrid as fault:
            return Judgement(Outcome.UNGRADED, f"the gold answer cannot be read: {fault}")
        for answer in answers:
            turn = VIEWS.get(answer.view.partition("/")[0] or "identity")
            if turn is None:
                return Judgement(Outcome.UNGRADED, f"the view {answer.view!r} is not known")
            try:
                votes[_turned_back(answer.text, turn)] += 1
            except MalformedGrid as fault:
                faults.append(str(fault))
        # On a tie the first answer wins: the plain view is asked first.
        attempts = votes.most_common(self._attempts)
        if not attempts:
            return Judgement(Outcome.INCORRECT, f"malformed: {faults[0]}")
        outcome = Outcome.CORRECT if right in dict(attempts) else Outcome.INCORRECT
        tally = ", ".join(str(count) for _, count in attempts)
        lost = f"; {len(faults)} malformed, the first: {faults[0]}" if faults else ""
        return Judgement(outcome, f"votes {tally} of {len(answers)}{lost}", "\n".join(grid for grid, _ in attempts))


def _turned_back(text: str, turn: Transform) -> str:
    """The answer with its view's transform inverted, as JSON. Raises MalformedGrid."""
    return to_text(turn.inverse(from_text(text)), GridStyle.LIST)
