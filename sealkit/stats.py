"""Means with their n and interval, paired tests, and the test that stops an evaluation early: all that is reported.

`mean_estimate` and `paired_difference` give Student-t intervals over the things averaged (contexts, as a rule:
questions about one passage are not independent); `bootstrap` resamples answers, or clusters of them. All intervals
are of 95 % and lie within the range that the quantity can take. With one value there is no telling: the interval is
the whole range.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import ceil
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.special import bdtrc, stdtrit  # not scipy.stats: importing it takes 0.7 s of the controller's start

from sealkit.resources import Estimate

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BLOCK = 4_000_000  # counts held at a time: 32 MB
_EXACT = 1e-9  # a share times n is a whole number but for rounding


def mean_estimate(values: Sequence[float], *, low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """Mean of `values` with its t interval, within [low, high]; None where there are none."""
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

    `clusters` names what each value belongs to; whole clusters are drawn, and n counts them. A plain bootstrap of 8
    equal answers says ± 0; so each extreme is imagined once more than it was seen, as Bonett & Price (2012) do for
    paired proportions: `imagined` clusters of mean size at `low`, as many at `high`. 0 is the plain bootstrap. The same
    arguments give the same interval. Raises ValueError where `clusters` is not as long as `values`.
    """
    if not len(values):
        return None
    sums, sizes = _by_cluster(values, clusters)
    n, mean, size = len(sums), fmean(values), fmean(sizes)
    ends = [(end * size, size) for end in (low, high)]
    units, counts = np.unique([*zip(sums, sizes, strict=True), *ends * imagined], axis=0, return_counts=True)
    means = _resampled(units, counts, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    # Inverted CDF, as a mean of few answers takes few values; what was seen lies within its own interval.
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
    """Mean of after - before over pairs of numbers in [0, 1], as `bootstrap` does. Raises ValueError on unequal
    lengths."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return bootstrap(differences, clusters=clusters, low=-1.0, imagined=imagined, seed=seed)


def widened(estimate: Estimate, batch_variant_rate: float, *, low: float = 0.0, high: float = 1.0) -> Estimate:
    """The interval of answers of which a share `batch_variant_rate` depends on the batch: that share may be
    right or wrong by chance, which moves a mean by the share at most, to either side. A difference has two sides that
    were answered: give twice the rate."""
    ends = {"low": max(low, estimate.low - batch_variant_rate), "high": min(high, estimate.high + batch_variant_rate)}
    return estimate.model_copy(update=ends)


def mcnemar(won: int, lost: int) -> float:
    """One-sided exact p-value (McNemar 1947, binomial) that the one who `won` so many of the discordant pairs is no
    better than the other. Without any the p-value is 1."""
    return float(bdtrc(won - 1, won + lost, 0.5)) if won else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down (1979), in their order: those at most alpha are significant together
    at family-wise level alpha."""
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = least
    return adjusted


def enough(accuracy: float, n: int) -> int:
    """The fewest right answers of `n` that are not below `accuracy`, a share."""
    return ceil(accuracy * n - _EXACT)


@lru_cache(maxsize=256)
def hopeless(n: int, needed: int, interval: int, confidence: float) -> tuple[int, ...]:
    """When to stop asking `n` questions, `interval` at a time in random order, because fewer than `needed` answers
    will be right in the end. Entry i: after (i + 1) batches, at so many right answers or fewer; -1: not yet.

    An exact group-sequential test. What is asked is a sample without replacement from the n questions themselves, so
    the right answers so far are hypergeometric whatever the questions have in common, and the random order is all that
    is assumed. Of all models that reach `needed`, the one with just that many is stopped most easily; along the looks
    its chance to be stopped is kept, by its exact distribution, at or under (1 - confidence) x the share asked: alpha
    spending in proportion to information (Lan & DeMets 1983; Kim & DeMets 1987, rho = 1). So with chance `confidence`
    or more a model that would reach `needed` is asked to the end. One that no longer can is stopped for certain.
    """
    chances = np.zeros(needed + 1)  # chances[s]: still asked, and s right so far
    chances[0] = 1.0
    spent, stops = 0.0, []
    right = np.arange(needed + 1)
    for asked in range(1, n):
        of_right = (needed - right) / (n - asked + 1)  # the next answer is one of the right ones left
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
    """Sum and size of each cluster; without clusters each value is one."""
    if clusters is None:
        return values, [1.0] * len(values)
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0.0) + 1
    return list(sums.values()), list(sizes.values())


def _resampled(units: Any, counts: Any, rng: np.random.Generator) -> Any:
    """Means of RESAMPLES resamples of as many units, drawn by how often each kind of unit is there."""
    n, block = int(counts.sum()), max(1, _BLOCK // len(counts))
    means = []
    for first in range(0, RESAMPLES, block):
        drawn = rng.multinomial(n, counts / n, size=min(block, RESAMPLES - first))
        sums, sizes = (drawn @ units).T
        means.append(sums / sizes)
    return np.concatenate(means)
