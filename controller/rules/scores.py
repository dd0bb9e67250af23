"""Accuracies of self-edits, averaged first over the samples of a context and then over contexts, so n counts contexts.
A rejected self-edit trains nothing, so it counts as the baseline of its context: leaving it out would favour an editor
that often fails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from sealkit.reports import Estimate
from sealkit.resources import Editor, Trial, TrialState
from sealkit.stats import mean_estimate, paired_difference, widened

Baselines = Mapping[tuple[str, str], float]
"""Accuracy without an adapter by (policy, context)."""


@dataclass
class Scores:
    """The accuracies of one policy's self-edits (or of the raw passages) by context, in [0, 1]."""

    by_context: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def means(self) -> dict[str, float]:
        """Mean of each context."""
        return {context: fmean(scores) for context, scores in sorted(self.by_context.items())}

    def bests(self) -> dict[str, float]:
        """Best of each context, on the same questions that chose it: an upper bound, not an unbiased estimate."""
        return {context: max(scores) for context, scores in sorted(self.by_context.items())}

    def mean(self) -> Estimate | None:
        """Mean over contexts of their means; None without any."""
        return mean_estimate(list(self.means().values()))


def baselines(trials: Iterable[Trial]) -> dict[tuple[str, str], float]:
    """Accuracies without an adapter, from these trials."""
    return {(t.policy, t.context_id): t.baseline_accuracy for t in trials if t.baseline_accuracy is not None}


def scores_of(trials: Iterable[Trial], base: Baselines, editor: str) -> Scores:
    """The scores of one editor's trials."""
    found = Scores()
    for trial in trials:
        score = base.get((trial.policy, trial.context_id)) if trial.state is TrialState.REJECTED else trial.accuracy
        if trial.editor == editor and score is not None:
            found.by_context[trial.context_id].append(score)
    return found


def paired_gain(first: Mapping[str, float], last: Mapping[str, float], trials: Iterable[Trial]) -> Estimate | None:
    """Scores by context, `last` minus `first`, on the contexts that both have; None without any. The interval is
    widened by the share of answers that depend on the batch, as recorded in `trials`."""
    shared = sorted(first.keys() & last.keys())
    gain = paired_difference([first[c] for c in shared], [last[c] for c in shared])
    variant = max((trial.batch_variant_rate for trial in trials), default=0.0)
    return widened(gain, 2 * variant, low=-1.0) if gain else None  # twice: on both sides


def figures(gain: Estimate) -> str:
    """A difference on held-out contexts, with its interval and n."""
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] on {gain.n} held-out contexts"


def policy_scores(trials: Sequence[Trial], policy: str) -> Scores:
    """The scores of the self-edits that the policy of this name wrote; `trials`: all trials of one split."""
    return scores_of([trial for trial in trials if trial.policy == policy], baselines(trials), Editor.POLICY)
