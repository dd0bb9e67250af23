"""Power: how small a difference of two policies a comparison on held-out contexts can show.

Two policies are compared by their mean score on each context, paired, so what counts is the standard deviation of the
differences over contexts. It is measured if both policies were scored. Before that it is derived from two variances, of
a context's true score between contexts and of one self-edit's score within a context: a score that is a mean of s
self-edits varies by between + within / s, and the scores of two policies on the same contexts are taken to correlate by
one half, so that their differences vary by as much as one policy's scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from controller.rules.scores import Scores, policy_scores
from sealkit.reports import Power
from sealkit.resources import Trial
from sealkit.stats import detectable, spread

ASSUMED = (0.25**2, 0.25**2)
"""Variances between and within contexts where no trial is recorded: those of scores that fill half of the range."""


def planned_power(contexts: int, samples: int, variances: tuple[float, float] | None) -> Power | None:
    """The power of a run that scores `samples` self-edits on each of `contexts`; None if it cannot compare.
    `variances`: between and within contexts, of recorded trials like the run's, if there are any."""
    if contexts < 2 or not samples:
        return None
    between, within = variances or ASSUMED
    return _power(contexts, samples, (between + within / samples) ** 0.5, measured=variances is not None)


def recorded_variances(trials: Sequence[Trial]) -> tuple[float, float] | None:
    """Variances of self-edits' scores between and within contexts, the mean over the policies that wrote them; None if
    too little is recorded."""
    policies = sorted({trial.policy for trial in trials})
    found = [variances for name in policies if (variances := _variances(policy_scores(trials, name)))]
    if not found:
        return None
    between, within = (fmean(column) for column in zip(*found, strict=True))
    return between, within


def power_of_run(held_out: Sequence[Trial], adopted: Sequence[str]) -> Power | None:
    """The power of the comparison of the last scored of the `adopted` policies with the first. With only one policy
    scored: that of a comparison with another, by its own variances. None with fewer than two contexts."""
    scores = [found for name in adopted if (found := policy_scores(held_out, name)).by_context]
    if not scores:
        return None
    first, last = scores[0], scores[-1]
    shared = sorted(first.by_context.keys() & last.by_context.keys())
    samples = max(len(last.by_context[context]) for context in last.by_context)
    if len(scores) < 2 or len(shared) < 2:
        return planned_power(len(first.by_context), samples, _variances(first))
    differences = [last.means()[context] - first.means()[context] for context in shared]
    return _power(len(shared), samples, stdev(differences), measured=True)


def _variances(scores: Scores) -> tuple[float, float] | None:
    return spread(list(scores.by_context.values()))


def _power(contexts: int, samples: int, deviation: float, *, measured: bool) -> Power:
    return Power(
        contexts=contexts,
        samples=samples,
        deviation=deviation,
        detectable=detectable(deviation, contexts),
        measured=measured,
    )
