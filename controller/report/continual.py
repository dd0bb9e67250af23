"""What an adaptation learned and forgot: the matrix R and the usual measures of continual learning.

R[i, j] is the accuracy on context j after commit i; row 0 is that of the model before any commit. BWT is that of
Lopez-Paz & Ranzato (arXiv 1706.08840), forgetting that of Chaudhry et al. (arXiv 1801.10112): the best accuracy on a
context minus its last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealkit.reports import Continual, Estimate, RunReport
from sealkit.resources import GateState
from sealkit.stats import mean_estimate


def continual(contexts: Sequence[str], rows: Sequence[Mapping[str, float]]) -> Continual:
    """The measures of `rows`, accuracies by context id: row 0, then one after each commit, in the order of `contexts`.

    A run that has not ended has fewer rows; contexts not yet learned are ignored. Means are over contexts, with
    confidence intervals. The context learned last is left out of BWT and forgetting, because nothing was learned after
    it.
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


def with_continual(
    report: RunReport, contexts: Sequence[str], after_rounds: Sequence[str], *, what: str = "contexts"
) -> RunReport:
    """The report of an adaptation: adds R and its measures, and replaces the verdict on the RL step. `contexts`: in the
    order of learning; `after_rounds`: names of θ_{t+1} of the rounds; `what` the contexts are called."""
    if not report.policies:
        return report
    by_name = {policy.name: policy for policy in report.policies}
    rows = [report.policies[0].scores, *(by_name[name].scores for name in after_rounds)]
    found = continual(contexts, rows)
    commits = len(set(after_rounds) - {report.policies[0].name})
    refused = sum(policy.gate is GateState.REFUSED for policy in report.policies if policy.round is not None)
    last = by_name[after_rounds[-1]] if after_rounds else report.policies[0]
    words = [f"{commits} of {len(after_rounds)} {what} were committed" + (f", {refused} refused" if refused else "")]
    if found.just_learned and found.at_end:
        words.append(f"accuracy {found.just_learned.mean:.2f} just after learning, {found.at_end.mean:.2f} at the end")
    if found.bwt:
        words.append(f"BWT {found.bwt.mean:+.2f} [{found.bwt.low:+.2f}, {found.bwt.high:+.2f}]")
    if last.retention:
        words.append(f"{last.gate_reason}")
    return report.changed(continual=found, rl_gain=None, verdict="; ".join(words) + ".")


class _Column:
    """The accuracies on one context after each commit."""

    def __init__(self, scores: Sequence[float], just_learned: float) -> None:
        self.just_learned = just_learned
        self.at_end = scores[-1]
        self.best_before = max(scores[:-1], default=scores[-1])

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]], context: str, learned_at: int) -> _Column | None:
        """None if it was not measured, or not graded, just after learning or at the end."""
        then, now = rows[learned_at].get(context), rows[-1].get(context)
        if then is None or now is None:
            return None
        return cls([row[context] for row in rows if context in row], then)


def _difference(values: Sequence[float]) -> Estimate | None:
    return mean_estimate(values, low=-1.0)
