"""What a run of commits learned and forgot: R, and the numbers that the literature takes from it.

R[i, j] is the accuracy on context j after commit i, row 0 that of the model before any. BWT as Lopez-Paz & Ranzato
(arXiv 1706.08840), forgetting as Chaudhry et al. (arXiv 1801.10112): the best a context ever was, less the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealkit.resources import Continual, Estimate
from sealkit.stats import mean_estimate


def continual(contexts: Sequence[str], rows: Sequence[Mapping[str, float]]) -> Continual:
    """The record of `rows`, accuracies by context id: row 0, then one after each commit, in the order of `contexts`.

    Where the run is not at its end there are fewer rows; contexts not yet learned count for nothing then. Means are
    over contexts, with their intervals. The last context learned has had nothing after it, so it is left out of BWT
    and forgetting.
    """
    last = len(rows) - 1
    learned = [
        (context, column)
        for j, context in enumerate(contexts[: max(last, 0)], start=1)
        if (column := _Column.of(rows, context, j)) is not None
    ]
    earlier = [column for context, column in learned if context != contexts[last - 1]]
    return Continual(
        contexts=tuple(contexts),
        matrix=tuple(tuple(row.get(context) for context in contexts) for row in rows),
        just_learned=mean_estimate([column.just_learned for _, column in learned]),
        at_end=mean_estimate([column.at_end for _, column in learned]),
        bwt=_difference([column.at_end - column.just_learned for column in earlier]),
        forgetting=_difference([column.best_before - column.at_end for column in earlier]),
    )


class _Column:
    """One context's way through the commits."""

    def __init__(self, scores: Sequence[float], just_learned: float) -> None:
        self.just_learned = just_learned
        self.at_end = scores[-1]
        self.best_before = max(scores[:-1], default=scores[-1])

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]], context: str, learned_at: int) -> _Column | None:
        """None where it was not asked, or not graded, when it had just been learned or at the end."""
        then, now = rows[learned_at].get(context), rows[-1].get(context)
        if then is None or now is None:
            return None
        return cls([row[context] for row in rows if context in row], then)


def _difference(values: Sequence[float]) -> Estimate | None:
    return mean_estimate(values, low=-1.0)
