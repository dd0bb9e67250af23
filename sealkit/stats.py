"""The statistics of reports: means with n and interval, paired tests, and the test for early stopping.

`mean_estimate` and `paired_difference` give Student-t intervals over the averaged units (usually contexts: questions
about one passage are not independent); `bootstrap` resamples answers, or clusters of them. All intervals are 95 %
intervals, clipped to the range of the quantity. With one value the interval is the whole range.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import ceil
from statistics import fmean, stdev, variance
from typing import Any

import numpy as np
from scipy.special import bdtrc, stdtrit  # not scipy.stats: importing it takes 0.7 s of the controller's start

from sealkit.reports import Estimate

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 10_000
_BLOCK = 4_000_000  # counts in memory at a time: 32 MB
_EXACT = 1e-9  # a share times n is a whole number up to rounding


def mean_estimate(values: Sequence[float], *, low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """Mean of `values` with its t interval, within [low, high]; None without values."""
    if not values:
        return None
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean=mean, low=low, high=high, n=1)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stdev(values) / n**0.5
    return Estimate(mean=mean, low=max(low, mean - half), high=min(high, mean + half), n=n)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate | None:
    """Mean of after - before over pairs, with its t interval, within [-1, 1]. Raises ValueError on unequal lengths."""
    return mean_estimate([b - a for a, b in zip(before, after, strict=True)], low=-1.0)


def detectable(deviation: float, n: int) -> float:
    """The smallest mean of n paired differences with this standard deviation that a two-sided t test at 5 % finds with
    80 % probability: (t(.975, n - 1) + t(.80, n - 1)) x deviation / sqrt(n), Bloom's minimum detectable effect (1995).
    Raises ValueError with fewer than two differences."""
    if n < 2:
        raise ValueError(f"{n} difference has no standard deviation")
    multiplier = stdtrit(n - 1, (1 + CONFIDENCE) / 2) + stdtrit(n - 1, POWER)
    error: float = deviation / n**0.5
    return float(multiplier) * error


def spread(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Variance between the true means of groups, and within groups: the ANOVA estimators of the one-way random model
    for groups of any sizes, the first not below 0. None unless there are two groups, one of them with two values."""
    groups = [group for group in groups if group]
    freedom = sum(len(group) - 1 for group in groups)
    if len(groups) < 2 or not freedom:
        return None
    within = sum((len(group) - 1) * variance(group) for group in groups if len(group) > 1) / freedom
    of_means = variance([fmean(group) for group in groups])
    return max(0.0, of_means - within * fmean(1 / len(group) for group in groups)), within


def bootstrap(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    imagined: int = 1,
    seed: int = 0,
) -> Estimate | None:
    """Mean of `values` with its percentile bootstrap interval (Efron 1979), within [low, high]; None without values.

    `clusters` gives the cluster of each value; whole clusters are drawn, and n counts them. A plain bootstrap of 8
    equal answers gives ± 0, so pseudo-observations are added at both extremes, as Bonett & Price (2012) do for paired
    proportions: `imagined` clusters of mean size at `low`, and as many at `high`. 0 is the plain bootstrap. The same
    arguments give the same interval. Raises ValueError if `clusters` and `values` differ in length.
    """
    if not len(values):
        return None
    sums, sizes = _by_cluster(values, clusters)
    n, mean, size = len(sums), fmean(values), fmean(sizes)
    ends = [(end * size, size) for end in (low, high)]
    units, counts = np.unique([*zip(sums, sizes, strict=True), *ends * imagined], axis=0, return_counts=True)
    means = _resampled(units, counts, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    # Inverted CDF, because a mean of few answers takes few values; the interval includes the observed mean.
    ends_of = [float(q) for q in np.quantile(means, (tail, 1 - tail), method="inverted_cdf")]
    return Estimate(mean=mean, low=max(low, min(mean, ends_of[0])), high=min(high, max(mean, ends_of[1])), n=n)


def paired_bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    imagined: int = 1,
    seed: int = 0,
) -> Estimate | None:
    """Mean of after - before over pairs of numbers in [0, 1], with `bootstrap`'s interval. Raises ValueError on unequal
    lengths."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return bootstrap(differences, clusters=clusters, low=-1.0, imagined=imagined, seed=seed)


def widened(estimate: Estimate, batch_variant_rate: float, *, low: float = 0.0, high: float = 1.0) -> Estimate:
    """The interval if a share `batch_variant_rate` of the answers depends on the batch: that share may be right or
    wrong by chance, which moves a mean by at most the share, in either direction. For a difference of two sides, pass
    twice the rate."""
    ends = {"low": max(low, estimate.low - batch_variant_rate), "high": min(high, estimate.high + batch_variant_rate)}
    return estimate.model_copy(update=ends)


def mcnemar(won: int, lost: int) -> float:
    """One-sided exact p-value (McNemar 1947, binomial) of `won` wins among the discordant pairs, under the hypothesis
    of no difference. Without discordant pairs the p-value is 1."""
    return float(bdtrc(won - 1, won + lost, 0.5)) if won else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down (1979), in their order: those at most alpha are significant at
    family-wise level alpha."""
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = least
    return adjusted


def enough(accuracy: float, n: int) -> int:
    """The smallest number of right answers of `n` that is not below the share `accuracy`."""
    return ceil(accuracy * n - _EXACT)


@lru_cache(maxsize=256)
def futility_bounds(n: int, needed: int, interval: int, confidence: float) -> tuple[int, ...]:
    """Boundaries for asking `n` questions, `interval` at a time in random order: stop if fewer than `needed` answers
    will be right in the end. Entry i: after (i + 1) batches, stop at this many right answers or fewer; -1: do not stop
    yet.

    An exact group-sequential test. The questions asked are a sample without replacement from the n questions, so the
    number of right answers so far is hypergeometric whatever the questions have in common; only the random order is
    assumed. Of all models that reach `needed`, one with exactly that many is stopped most easily. At each interim
    analysis its probability of having been stopped is, by its exact distribution, at most (1 - confidence) x the share
    asked: alpha spending proportional to information (Lan & DeMets 1983; Kim & DeMets 1987, rho = 1). So a model that
    would reach `needed` is asked to the end with probability `confidence` or more. One that can no longer reach it is
    always stopped.
    """
    chances = np.zeros(needed + 1)  # chances[s]: still asked, and s right so far
    chances[0] = 1.0
    spent, stops = 0.0, []
    right = np.arange(needed + 1)
    for asked in range(1, n):
        of_right = (needed - right) / (n - asked + 1)  # probability that the next answer is right
        chances = chances * (1 - of_right) + np.concatenate(([0.0], (chances * of_right)[:-1]))
        if asked % interval == 0:
            sums = np.cumsum(chances)
            allowed = (1 - confidence) * asked / n - spent
            stop = int(np.searchsorted(sums, allowed, side="right")) - 1
            if stop >= 0:
                spent += float(sums[stop])
                chances[: stop + 1] = 0.0
            stops.append(stop)
    return tuple(stops)


def _by_cluster(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Sum and size of each cluster; without clusters each value is its own."""
    if clusters is None:
        return values, [1.0] * len(values)
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0.0) + 1
    return list(sums.values()), list(sizes.values())


def _resampled(units: Any, counts: Any, rng: np.random.Generator) -> Any:
    """Means of RESAMPLES resamples with the same number of units, drawn by the multiplicity of each distinct unit."""
    n, block = int(counts.sum()), max(1, _BLOCK // len(counts))
    means = []
    for first in range(0, RESAMPLES, block):
        drawn = rng.multinomial(n, counts / n, size=min(block, RESAMPLES - first))
        sums, sizes = (drawn @ units).T
        means.append(sums / sizes)
    return np.concatenate(means)
