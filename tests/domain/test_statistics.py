"""Every statistic of ours beside scipy's, over random and over extreme arguments."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import isotonic_regression
from scipy.special import bdtrc, pdtrc

from domain import statistics as ours

CLOSE = 1e-9
COUNTS = st.integers(0, 400)


def same(found: float, expected: float, relative: float = CLOSE) -> bool:
    """Return whether two probabilities agree in relative terms, or both are below 1e-200, where scipy loses digits."""
    return math.isclose(found, expected, rel_tol=relative, abs_tol=1e-200)


@given(COUNTS, st.floats(0, 300))
def test_poisson_tail(count: int, mean: float) -> None:
    assert same(ours.poisson_tail(count, mean), 1.0 if count == 0 else float(pdtrc(count - 1, mean)))


@given(COUNTS, st.integers(0, 400), st.floats(1e-6, 1 - 1e-6))
def test_binomial_tail(count: int, trials: int, chance: float) -> None:
    expected = 1.0 if count == 0 else 0.0 if count > trials else float(bdtrc(count - 1, trials, chance))
    assert same(ours.binomial_tail(count, trials, chance), expected)


@given(st.one_of(st.integers(0, 400), st.sampled_from([10**5, 10**6])), st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_binomial_ends(trials: int, chance: float) -> None:
    expected = stats.binom.ppf(0.025, trials, chance), stats.binom.isf(0.025, trials, chance)
    assert ours.binomial_ends(trials, chance, 0.025) == (expected if trials else (0, 0))


@given(st.integers(0, 300), st.integers(1, 300), st.floats(1e-4, 0.9), st.floats(0.05, 1.0))
def test_varied_tail(count: int, trials: int, share: float, variation: float) -> None:
    concentration = max((1 - share) / (share * variation**2) - 1, 2.0)
    a, b = share * concentration, (1 - share) * concentration
    expected = float(stats.betabinom.pmf(np.arange(count, trials + 1), trials, a, b).sum())
    assert ours.varied_tail(count, trials, share, variation) == pytest.approx(expected, rel=1e-6, abs=1e-200)


@pytest.mark.parametrize("variation", [0.0, 0.2, 0.35])
def test_the_variation_of_peoples_shares_is_estimated(variation: float) -> None:
    random, varied = np.random.default_rng(1), ours.Varied(0.2, 1.0)
    people = [
        (int(trials), share) for trials, share in zip(random.integers(20, 200, 3_000), [0.1, 0.3] * 1_500, strict=True)
    ]
    for trials, share in people:
        a = share * (max((1 - share) / (share * variation**2) - 1, 1.0) if variation else 1e9)
        varied.add(int(random.binomial(trials, random.beta(a, a / share - a))), trials, share)
    assert varied.variation == pytest.approx(max(variation, 0.1), abs=0.08)  # at least half the usual one
    assert varied.without(50, 50, 0.1) <= varied.variation  # a person far from all others says nothing about them


@given(st.floats(1e-12, 1.0), st.floats(1e-12, 1.0))
def test_two_chances_by_fishers_method(one: float, other: float) -> None:
    assert same(ours.fisher_both(one, other), float(stats.combine_pvalues([one, other]).pvalue))


@given(COUNTS, st.integers(1, 200), st.floats(1e-3, 1 - 1e-6))
def test_negative_binomial_tail(count: int, successes: int, chance: float) -> None:
    expected = float(stats.nbinom.sf(count - 1, successes, chance))
    assert same(ours.negative_binomial_tail(count, successes, chance), expected)


@given(st.tuples(COUNTS, COUNTS), st.tuples(COUNTS, COUNTS))
def test_fisher_greater(mine: tuple[int, int], others: tuple[int, int]) -> None:
    total, hits = sum(mine) + sum(others), mine[0] + others[0]
    expected = math.fsum(
        math.comb(hits, k) * math.comb(total - hits, sum(mine) - k) / math.comb(total, sum(mine))
        for k in range(mine[0], min(hits, sum(mine)) + 1)
    )  # exact integers, by the definition
    assert same(ours.fisher_greater(mine, others), expected)


def test_large_counts_take_milliseconds() -> None:
    began = time.process_time()
    assert same(ours.poisson_tail(1_003_000, 1e6), float(stats.poisson.sf(1_002_999, 1e6)), 1e-7)
    assert same(ours.binomial_tail(301_000, 1_000_000, 0.3), float(stats.binom.sf(300_999, 1_000_000, 0.3)), 1e-7)
    assert same(
        ours.fisher_greater((600, 99_400), (500, 99_500)),
        float(stats.hypergeom.sf(599, 200_000, 1_100, 100_000)),
        1e-7,
    )
    assert ours.poisson_tail(1_000_000, 1.0) == 0.0
    assert time.process_time() - began < 1


@given(st.floats(-60, 60), st.one_of(st.floats(1, 500), st.sampled_from([1e4, 1e6])))
def test_student(score: float, freedom: float) -> None:
    assert same(ours.student_p(score, freedom), float(2 * stats.t.sf(abs(score), freedom)), 1e-7)


@pytest.mark.parametrize("freedom", [1, 1.0001, 1.5, 2, 2.71, 3, 10, 29, 100.5, 1e4, 1e6])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_student_quantile(level: float, freedom: float) -> None:
    assert same(ours.student_quantile(level, freedom), float(stats.t.ppf((1 + level) / 2, freedom)))


@given(st.floats(-35, 35))
def test_normal(score: float) -> None:
    assert same(ours.normal_p(score), float(2 * stats.norm.sf(abs(score))))


SAMPLES = st.lists(st.integers(-1000, 1000), min_size=2, max_size=20).filter(lambda some: len(set(some)) > 1)


@given(SAMPLES, SAMPLES)
def test_welch(first: list[int], second: list[int]) -> None:
    samples = [ours.Sample(len(some), float(np.mean(some)), float(np.var(some, ddof=1))) for some in (first, second)]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    found = ours.welch_interval(samples[0], samples[1], 0.95)
    assert found == pytest.approx((float(expected.low), float(expected.high)), rel=CLOSE, abs=1e-9)


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson(share: tuple[int, int]) -> None:
    expected = stats.binomtest(*share).proportion_ci(method="wilson")
    assert ours.wilson_interval(*share) == pytest.approx((float(expected.low), float(expected.high)), rel=CLOSE)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=2, max_size=40))
def test_one_rate(groups: list[tuple[int, int]]) -> None:
    assert same(ours.one_rate_p(groups), float(stats.chi2_contingency(np.array(groups)).pvalue))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100)), min_size=1, max_size=60))
def test_never_rising(bands: list[tuple[float, int]]) -> None:
    values, weights = [value for value, _ in bands], [weight for _, weight in bands]
    expected = isotonic_regression(values, weights=weights, increasing=False).x
    assert ours.never_rising(values, weights) == pytest.approx(list(expected), abs=1e-12)


TIMES = st.lists(st.integers(0, 40), max_size=30)


@pytest.mark.filterwarnings("ignore:The confidence interval is undefined")
@given(TIMES.filter(len), TIMES, st.lists(st.integers(0, 40), min_size=1))
def test_survival(left: list[int], here: list[int], at: list[int]) -> None:
    at = [time for time in at if time <= max(left + here)]
    curve = stats.ecdf(stats.CensoredData(left, right=here)).sf
    expected = curve.confidence_interval(method="log-log")
    for time_, found in zip(at, ours.survival(left, here, at), strict=True):
        assert found.share == pytest.approx(float(curve.evaluate([time_])[0]), abs=1e-12)
        bounds = [float(side.evaluate([time_])[0]) for side in (expected.low, expected.high)]
        assert (found.interval is None) == any(map(math.isnan, bounds))
        if found.interval is not None:
            assert found.interval == pytest.approx(bounds, rel=1e-9)
