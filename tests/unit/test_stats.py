"""The statistics, against scipy and against their definitions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sealkit.reports import Estimate
from sealkit.stats import (
    bootstrap,
    detectable,
    enough,
    futility_bounds,
    holm,
    mcnemar,
    mean_estimate,
    paired_bootstrap,
    paired_difference,
    spread,
    widened,
)

shares = st.lists(st.floats(0, 1), min_size=2, max_size=40)
bits = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


class TestStudent:
    @given(shares)
    def test_it_is_scipys_t_interval_clipped(self, values: list[float]) -> None:
        got = mean_estimate(values)
        error = scipy_stats.sem(values)
        low, high = scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), error) if error else [got.mean] * 2
        assert got is not None
        assert (got.low, got.high) == pytest.approx((max(0, low), min(1, high)), abs=1e-9)
        assert (got.mean, got.n) == (pytest.approx(np.mean(values)), len(values))

    def test_one_value_tells_nothing_and_none_gives_none(self) -> None:
        assert mean_estimate([0.3]) == Estimate(mean=0.3, low=0, high=1, n=1)
        assert paired_difference([0.3], [0.5]).low == -1  # type: ignore[union-attr]
        assert mean_estimate([]) is None

    def test_pairs_must_pair(self) -> None:
        for paired in (paired_difference, paired_bootstrap):
            with pytest.raises(ValueError, match="zip"):
                paired([0.1, 0.2], [0.1])


class TestPower:
    def test_the_detectable_difference_is_found_four_times_in_five(self) -> None:
        found = {}
        for n in (6, 12, 24, 100):
            noncentral = detectable(0.4, n) / (0.4 / n**0.5)
            critical = scipy_stats.t.ppf(0.975, n - 1)
            found[n] = 1 - scipy_stats.nct.cdf(critical, n - 1, noncentral)
        assert found == {n: pytest.approx(0.8, abs=0.03 if n < 12 else 0.015) for n in found}
        with pytest.raises(ValueError, match="1 difference"):
            detectable(0.4, 1)

    @given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=10))
    def test_the_variances_are_those_of_a_one_way_anova(self, groups: list[list[float]]) -> None:
        found = spread(groups)
        assert found is not None
        between, within = found
        means = [np.mean(group) for group in groups]
        mean_square_between = 3 * np.var(means, ddof=1)
        assert within == pytest.approx(np.mean([np.var(group, ddof=1) for group in groups]), abs=1e-12)
        assert between == pytest.approx(max(0.0, (mean_square_between - within) / 3), abs=1e-12)

    def test_without_two_groups_or_a_repeated_value_there_are_none(self) -> None:
        assert spread([[0.1, 0.2]]) is spread([[0.1], [0.2]]) is spread([]) is None
        assert spread([[0.5, 0.5], [1.0]]) == (0.125, 0.0)


class TestBootstrap:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=60))
    def test_plain_and_paired_it_is_scipys(self, pairs: list[tuple[bool, bool]]) -> None:
        before, after = ([float(pair[side]) for pair in pairs] for side in (0, 1))
        got = paired_bootstrap(before, after, imagined=0)
        assert got is not None
        differences = np.subtract(after, before)
        assert got.mean == pytest.approx(differences.mean())
        if differences.std() == 0:
            assert got.low == got.high == got.mean
            return
        # Both draw at random: an end may fall on the next value that a mean of n can take.
        theirs = scipy_stats.bootstrap(
            (differences,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1)
        )
        ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
        assert (got.low, got.high) == pytest.approx(ends, abs=1.01 / len(pairs))

    @settings(max_examples=25, deadline=None)
    @given(bits, st.integers(0, 2**32))
    def test_the_interval_holds_the_mean_lies_in_the_range_and_is_the_same_again(
        self, values: list[float], seed: int
    ) -> None:
        got = bootstrap(values, seed=seed)
        assert got is not None
        assert 0 <= got.low <= got.mean <= got.high <= 1
        assert got == bootstrap(values, seed=seed)

    @pytest.mark.parametrize("n", [2, 8, 32])
    def test_equal_answers_are_not_taken_for_certainty(self, n: int) -> None:
        got = paired_bootstrap([1.0] * n, [1.0] * n)
        exact = scipy_stats.binomtest(0, n).proportion_ci(0.95, method="exact").high
        assert got is not None
        assert got.mean == 0
        assert -got.low == pytest.approx(got.high, abs=2 / (n + 4))
        assert exact / 2 < got.high <= exact + 0.1

    def test_one_answer_tells_nothing_and_none_gives_none(self) -> None:
        assert paired_bootstrap([1.0], [0.0]) == Estimate(mean=-1, low=-1, high=1, n=1)
        assert bootstrap([]) is None

    def test_more_answers_narrow_it(self) -> None:
        widths = [got.high - got.low for n in (5, 20, 80, 320) if (got := bootstrap([0.0, 1.0] * n))]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(642), rel=0.1)

    def test_answers_of_one_cluster_count_as_one(self) -> None:
        values = [0.0, 1.0, 1.0, 0.0, 1.0] * 4
        alone = bootstrap(values, imagined=0)
        tenfold = bootstrap(values * 10, clusters=list(range(20)) * 10, imagined=0)
        assert alone is not None
        assert tenfold is not None
        assert (tenfold.low, tenfold.high, tenfold.n) == (pytest.approx(alone.low), pytest.approx(alone.high), 20)

    def test_clusters_of_unlike_size_weigh_by_it(self) -> None:
        got = bootstrap([1.0, 1.0, 1.0, 0.0], clusters="aaab", imagined=0)
        assert got == Estimate(mean=0.75, low=0, high=1, n=2)

    def test_every_value_needs_a_cluster(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            bootstrap([0.0, 1.0], clusters="a")

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=8, max_size=30, unique=True))
    def test_numbers_that_are_no_verdicts_too(self, values: list[float]) -> None:
        got = bootstrap(values, imagined=0)
        theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1))
        assert got is not None
        ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
        assert (got.low, got.high) == pytest.approx(ends, abs=0.1 * (np.max(values) - np.min(values)))


class TestTests:
    @given(st.integers(0, 200), st.integers(0, 200))
    def test_mcnemar_is_scipys_binomial_test(self, won: int, lost: int) -> None:
        theirs = scipy_stats.binomtest(won, won + lost, 0.5, alternative="greater").pvalue if won + lost else 1.0
        assert mcnemar(won, lost) == pytest.approx(theirs)

    @given(st.lists(st.floats(0, 1), max_size=6))
    def test_holm_is_the_closed_bonferroni_test(self, p_values: list[float]) -> None:
        """A hypothesis is rejected where every set of hypotheses with it is (Marcus, Peritz & Gabriel 1976)."""
        everyone = range(len(p_values))
        sets = [group for size in everyone for group in combinations(everyone, size + 1)]
        closed = [
            max(min(1.0, len(group) * min(p_values[j] for j in group)) for group in sets if i in group)
            for i in everyone
        ]
        assert holm(p_values) == pytest.approx(closed)


def test_flips_widen_an_interval_on_both_sides_within_its_range() -> None:
    estimate = Estimate(mean=0.5, low=0.03, high=0.9, n=10)
    assert widened(estimate, 0.0) == estimate
    wide = widened(estimate, 0.05)
    assert (wide.mean, wide.low, wide.high, wide.n) == (0.5, 0.0, pytest.approx(0.95), 10)
    assert widened(estimate, 0.05, low=-1).low == pytest.approx(-0.02)


def chances_to_be_stopped(n: int, interval: int, stops: Sequence[int], right: int) -> list[float]:
    """Up to each look, of a model that gets `right` of n right: by hypergeometric draws of a interval each."""
    states, stopped, found = {0: 1.0}, 0.0, []
    for look, limit in enumerate(stops):
        after: dict[int, float] = defaultdict(float)
        for so_far, chance in states.items():
            draws = hypergeometric(n - look * interval, right - so_far, interval)
            for more, share in enumerate(draws):
                after[so_far + more] += chance * share
        stopped += sum(chance for so_far, chance in after.items() if so_far <= limit)
        found.append(stopped)
        states = {so_far: chance for so_far, chance in after.items() if so_far > limit and chance > 0}
    return found


@cache
def hypergeometric(total: int, right: int, drawn: int) -> list[float]:
    return list(scipy_stats.hypergeom.pmf(range(drawn + 1), total, right, drawn))


early_stopping = st.tuples(st.integers(1, 14), st.integers(1, 5), st.floats(0.6, 0.99))


class TestHopeless:
    @settings(max_examples=40, deadline=None)
    @given(early_stopping, st.data())
    def test_who_would_reach_it_is_stopped_no_more_often_than_agreed(
        self, early_stopping: tuple[int, int, float], data: st.DataObject
    ) -> None:
        n, interval, confidence = early_stopping
        needed = data.draw(st.integers(0, n))
        stops = futility_bounds(n, needed, interval, confidence)
        for right in range(needed, n + 1):
            for look, spent in enumerate(chances_to_be_stopped(n, interval, stops, right)):
                assert spent <= (1 - confidence) * (look + 1) * interval / n + 1e-9

    @given(early_stopping, st.data())
    def test_who_cannot_reach_it_any_more_is_stopped(
        self, early_stopping: tuple[int, int, float], data: st.DataObject
    ) -> None:
        n, interval, confidence = early_stopping
        needed = data.draw(st.integers(0, n))
        stops = futility_bounds(n, needed, interval, confidence)
        assert len(stops) == (n - 1) // interval
        for look, limit in enumerate(stops):
            left = n - (look + 1) * interval
            assert needed - left - 1 <= limit < max(needed, 0) or limit == -1 >= needed - left - 1

    def test_it_spends_what_it_may(self) -> None:
        stops = futility_bounds(40, 20, 4, 0.9)
        assert 0.05 < chances_to_be_stopped(40, 4, stops, 20)[-1] <= 0.1
        assert chances_to_be_stopped(40, 4, stops, 8)[-1] > 0.95

    def test_less_confidence_stops_sooner(self) -> None:
        strict, loose = futility_bounds(40, 20, 4, 0.99), futility_bounds(40, 20, 4, 0.7)
        assert all(a <= b for a, b in zip(strict, loose, strict=True))
        assert strict != loose

    def test_nothing_needed_nothing_stopped(self) -> None:
        assert set(futility_bounds(10, 0, 1, 0.6)) == {-1}

    @given(st.integers(1, 200), st.data())
    def test_enough_is_not_below(self, n: int, data: st.DataObject) -> None:
        right = data.draw(st.integers(0, n))
        assert enough(right / n, n) == right
        share = data.draw(st.floats(0, 1))
        assert enough(share, n) / n >= share - 1e-9 > (enough(share, n) - 1) / n - 2e-9
