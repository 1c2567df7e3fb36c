"""Sums by place: exact for any 64-bit numbers whose sums fit."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from projections.views.totals import sum_by_place

numbers = st.integers(-(1 << 55), 1 << 55) | st.integers(-3, 3) | st.integers((1 << 53) - 2, (1 << 53) + 2)


@given(st.lists(st.tuples(st.integers(0, 5), numbers), max_size=30))
def test_sums_are_those_of_whole_numbers(rows: list[tuple[int, int]]) -> None:
    expected = defaultdict[int, int](int)
    for place, number in rows:
        expected[place] += number
    found = sum_by_place(np.array([one for one, _ in rows], np.int64), np.array([one for _, one in rows], np.int64))
    assert found.tolist() == [expected[place] for place in range(max(expected, default=-1) + 1)]


def test_truth_values_are_counted() -> None:
    assert sum_by_place(np.array([1, 1, 0, 1]), np.array([True, False, True, True])).tolist() == [1, 2]
