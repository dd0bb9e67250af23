"""Means with their n and interval. Everything that is reported goes through here.

Intervals are 95 % Student-t intervals over the things averaged (contexts, as a rule: questions about one passage
are not independent), clipped to the range that the quantity can take. With one value there is no telling: the
interval is the whole range.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.stats import t as student_t

from sealkit.resources import Estimate

CONFIDENCE = 0.95


def mean_estimate(values: Sequence[float], *, low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """Mean of `values` with its interval, within [low, high]; None where there are none."""
    if not values:
        return None
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean=mean, low=low, high=high, n=1)
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(values) / n**0.5
    return Estimate(mean=mean, low=max(low, mean - half), high=min(high, mean + half), n=n)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate | None:
    """Mean of after - before over pairs, with its interval, within [-1, 1]. Raises ValueError on unequal lengths."""
    return mean_estimate([b - a for a, b in zip(before, after, strict=True)], low=-1.0)
