"""Grids: each view's answer is turned back, all of them vote, and the two with most votes are the two attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sealkit.domains.arc.grids import GridStyle, MalformedGrid, from_text, to_text
from sealkit.domains.arc.transforms import VIEWS, Transform
from sealkit.judges.base import Answer, Judgement
from sealkit.judges.content import ContentJudge
from sealkit.types import Outcome


class GridJudge:
    """ARC's rule: a task is solved where one of `attempts` grids is the gold one, cell by cell.

    A view's label is the name of the transform that it was asked under, and after a slash what else was done. An answer
    that is no grid has no vote; where none is a grid the verdict is wrong, and says what the first one lacks. A gold
    answer that is no JSON list is text, of the retention suite's questions, and the judge `content` grades it.
    """

    name = "grid"

    def __init__(self, attempts: int = 2) -> None:
        self._attempts = attempts
        self._text = ContentJudge()
        self.version = f"1-{attempts}-{self._text.version}"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        """UNGRADED where the gold answer is a broken grid or a view has a name that is not known."""
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
        # The first to be given wins a tie: the plain view is asked first.
        attempts = votes.most_common(self._attempts)
        if not attempts:
            return Judgement(Outcome.INCORRECT, f"malformed: {faults[0]}")
        outcome = Outcome.CORRECT if right in dict(attempts) else Outcome.INCORRECT
        tally = ", ".join(str(count) for _, count in attempts)
        lost = f"; {len(faults)} malformed, the first: {faults[0]}" if faults else ""
        return Judgement(outcome, f"votes {tally} of {len(answers)}{lost}", "\n".join(grid for grid, _ in attempts))


def _turned_back(text: str, turn: Transform) -> str:
    """The grid that was meant, as JSON. Raises MalformedGrid."""
    return to_text(turn.inverse(from_text(text)), GridStyle.LIST)
