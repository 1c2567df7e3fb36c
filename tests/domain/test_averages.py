"""The intervals of quantiles and means beside scipy's."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from domain.analytics.averages import count_interval, interval_places, mean_interval, quantile_interval

TIED = st.lists(st.integers(0, 6), max_size=80)
HOURS = st.lists(st.floats(0, 1000), min_size=2, max_size=40)


def of_scipy(values: list[int], quantile: float) -> list[float] | None:
    """Return scipy's interval of a quantile, or ``None`` where an end is unbounded."""
    ends = stats.quantile_test(values, q=3, p=quantile).confidence_interval(0.95) if values else (np.nan, np.nan)
    return None if np.isnan(ends).any() else [float(end) for end in ends]


@given(TIED, st.sampled_from((0.5, 0.9)))
def test_a_quantile_has_scipys_interval(values: list[int], quantile: float) -> None:
    assert quantile_interval(np.array(values), quantile) == of_scipy(values, quantile)


@given(TIED, st.sampled_from((0.5, 0.9)))
def test_the_interval_holds_the_quantile_in_any_order(values: list[int], quantile: float) -> None:
    found = quantile_interval(np.array(values), quantile)
    assert found == quantile_interval(np.sort(values)[::-1], quantile)
    if found is not None:
        assert found[0] <= np.quantile(values, quantile) <= found[1]


@pytest.mark.parametrize(("quantile", "fewest"), [(0.5, 6), (0.9, 36)])
def test_too_few_values_have_no_interval(quantile: float, fewest: int) -> None:
    known = [interval_places(n, quantile) is not None for n in range(fewest + 20)]
    assert known == [n >= fewest for n in range(fewest + 20)]


def test_the_places_of_a_million_values_are_scipys() -> None:
    began = time.process_time()
    found = [interval_places(n, 0.9) for n in (10_000, 1_000_000)]
    assert time.process_time() - began < 0.1
    ends = [(stats.binom.ppf(0.025, n, 0.9) - 1, stats.binom.isf(0.025, n, 0.9)) for n in (10_000, 1_000_000)]
    assert found == ends


@given(HOURS)
def test_a_mean_has_students_interval(hours: list[float]) -> None:
    mean = float(np.mean(hours))
    found = mean_interval(np.array(hours), mean)
    assert found == mean_interval(np.array(hours[::-1]), mean)
    reach = stats.t.ppf(0.975, len(hours) - 1) * stats.sem(hours)
    assert found == pytest.approx([max(0.0, mean - reach), mean + reach], rel=1e-9, abs=1e-9)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40))
def test_the_mean_of_counts_has_students_interval(counts: list[int]) -> None:
    reach = stats.t.ppf(0.975, len(counts) - 1) * stats.sem(counts)
    found = count_interval(sum(counts), sum(one**2 for one in counts), len(counts))
    assert found == pytest.approx([max(0.0, np.mean(counts) - reach), np.mean(counts) + reach], rel=1e-9, abs=1e-9)


def test_a_mean_of_one_value_or_none_has_no_interval() -> None:
    assert mean_interval(np.array([2.5]), 2.5) is None
    assert count_interval(3, 9, 1) is None
    assert count_interval(0, 0, 0) is None
