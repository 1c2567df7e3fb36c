"""Intervals of 95 % for medians, other quantiles and means.

The interval of a quantile is free of assumptions about the distribution: its ends are two of the ordered values, chosen
by the binomial distribution (Conover 1999, 3.2; Hahn and Meeker 1991, 5.2). It contains the quantile in at least 95 %
of samples, with more where values are equal. The interval of a mean is Student's.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from domain.statistics import binomial_ends, student_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL = 0.025
"""The most that each side of an interval leaves out."""


def interval_places(n: int, quantile: float) -> tuple[int, int] | None:
    """Return the places from 0, among ``n`` ordered values, of the ends of a quantile's interval.

    The number of values below the quantile is binomial. The lower end is the highest place that has at most 2.5 % of
    this distribution below it, the upper end the lowest with at most 2.5 % above. The result is ``None`` where an end
    would lie beyond the values: a median needs 6 of them, a 90th percentile 36.
    """
    below, above = binomial_ends(n, quantile, _TAIL)
    return (below - 1, above) if below > 0 and above < n else None


def quantile_interval(values: NDArray[Any], quantile: float = 0.5) -> list[Any] | None:
    """Return the 95 % interval of a quantile of values in any order; ``None`` for too few (see `interval_places`)."""
    places = interval_places(len(values), quantile)
    return None if places is None else np.partition(values, places)[[*places]].tolist()


def mean_interval(values: NDArray[np.float64], mean: float) -> list[float] | None:
    """Return Student's 95 % interval of the mean of values of zero or more; one value has none.

    The squares are added in the order of their size, so that the interval does not depend on the order of the values.
    """
    squares = float(np.sort((values - mean) ** 2).sum())
    return student_interval(mean, squares, len(values), 0.0, inf)


def count_interval(total: int, squares: int, n: int) -> list[float] | None:
    """Return Student's 95 % interval of the mean of ``n`` counts from their sum and the sum of their squares."""
    return student_interval(total / n, (n * squares - total * total) / n, n, 0.0, inf) if n else None
