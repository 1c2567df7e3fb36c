"""Intervals of the oracle's medians, quantiles and means, computed by scipy from what its SQL returns."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from scipy import stats

from tests.support.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence


def intervals_of(row: Document) -> Document:
    """Return an oracle's row with an interval for each ordered list ``<figure>_of`` and standard error ``<figure>_error``.

    A list is that of a median, or of a 90th percentile if the figure's name begins with ``p90``. The ``n`` of an error
    is the row's ``n``, ``opened`` or ``interactions``; no such mean is below zero. Rows within rows are treated alike.
    """
    found: Document = {}
    for name, value in row.items():
        figure, _, suffix = name.rpartition("_")
        if suffix == "of" and isinstance(value, list | None):
            found[f"{figure}_interval"] = interval_of_quantile(value, 0.9 if name.startswith("p90") else 0.5)
        elif suffix == "error" and figure in row:
            n = next(row[each] for each in ("n", "opened", "interactions") if each in row)
            found[f"{figure}_interval"] = interval_of_mean(row[figure], value, n, (0, math.inf))
        elif isinstance(value, dict):
            found[name] = intervals_of(value)
        elif isinstance(value, list):
            found[name] = [intervals_of(one) if isinstance(one, dict) else one for one in value]
        else:
            found[name] = value
    return found


def interval_of_mean(mean: float | None, error: float | None, n: int, scale: Sequence[float]) -> list[float] | None:
    """Return the part of Student's 95 % interval, computed by scipy, that lies on the scale."""
    if mean is None or error is None or n < 2:
        return None
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    lowest, highest = scale
    return [max(mean - reach, lowest), min(mean + reach, highest)]


def interval_of_quantile(values: Sequence[float] | None, quantile: float) -> list[float] | None:
    """Return the ordered values at the ends of scipy's 95 % interval of a quantile; ``None`` where one is unbounded."""
    low, high = _ends_of_quantile(len(values or ()), quantile)
    return [values[low], values[high]] if values and low >= 0 and high < len(values) else None


@cache
def _ends_of_quantile(n: int, quantile: float) -> tuple[int, int]:
    """Return the places that `scipy.stats.quantile_test` takes; a test of the intervals compares them with it."""
    return int(stats.binom.ppf(0.025, n, quantile)) - 1, int(stats.binom.isf(0.025, n, quantile))
