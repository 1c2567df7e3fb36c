"""Tests and intervals for rules and reports: tails, Student's t, chi-squared, Wilson, Kaplan and Meier.

The tails of counts are sums of positive terms, so small tails lose no digits. Student's t and the chi-squared
distribution come from mpmath. Tests compare every function with scipy, which is ten times as large as all other
dependencies and therefore none.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import erfc, exp, inf, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_NEGLIGIBLE = 1e-17
_FAR = 2.0
"""Standard deviations beyond which a count says no more about how people differ: it may be misuse."""
_DIGITS = 30
_CLOSE = 1e-6
"""A relative step of Newton's method, after which the error is its square."""
_Z = 1.959963984540054
"""The number of standard deviations that a 95 % interval reaches to."""


def poisson_tail(count: int, mean: float) -> float:
    """Return P(X >= count) of a Poisson distribution."""
    return _tail(count, 0, int(mean), lambda x: mean / (x + 1))


def binomial_tail(count: int, trials: int, chance: float) -> float:
    """Return P(X >= count) of a binomial distribution, for a chance between 0 and 1, both excluded."""
    odds = chance / (1 - chance)
    mode = min(int((trials + 1) * chance), trials)
    return _tail(count, 0, mode, lambda x: (trials - x) / (x + 1) * odds)


@lru_cache(1 << 14)
def binomial_ends(trials: int, chance: float, tail: float) -> tuple[int, int]:
    """Return the smallest count with P(X <= count) >= tail, and the smallest with P(X > count) <= tail.

    X is binomial. Counts more than nine standard deviations from the mean are left out: their sum is negligible.
    """
    import numpy as np

    mean, reach = trials * chance, 9 * (sqrt(trials * chance * (1 - chance)) + 1)
    first, last = max(0, int(mean - reach)), min(trials, int(mean + reach) + 1)
    counts = np.arange(first, last)
    ratios = np.log((trials - counts) / (counts + 1) * (chance / (1 - chance)))
    parts = np.exp(np.concatenate(([0.0], np.cumsum(ratios))))
    rest = tail * parts.sum()
    low = int(np.searchsorted(np.cumsum(parts), rest))
    high = int(np.searchsorted(np.cumsum(parts[::-1]), rest, side="right"))
    return first + low, last - high


def negative_binomial_tail(count: int, successes: float, chance: float) -> float:
    """Return P(X >= count), where X is the number of failures before ``successes`` successes of this ``chance``."""
    mode = int((successes - 1) * (1 - chance) / chance)
    return _tail(count, 0, mode, lambda x: (x + successes) / (x + 1) * (1 - chance))


def varied_tail(count: int, trials: int, share: float, variation: float) -> float:
    """Return P(X >= count) of a beta-binomial distribution: a binomial one whose share differs between people.

    ``variation`` is the coefficient of variation of that share (Skellam 1948; Gelman et al., Bayesian Data Analysis,
    5.3): the beta distribution has the mean ``share``, and share (1 - share) / (concentration + 1) as its variance.
    """
    concentration = max((1 - share) / (share * variation**2) - 1, 2.0)
    a, b = share * concentration, (1 - share) * concentration
    if count <= 0:
        return 1.0
    term = (
        exp(
            lgamma(trials + 1)
            - lgamma(count + 1)
            - lgamma(trials - count + 1)
            + lgamma(count + a)
            + lgamma(trials - count + b)
            - lgamma(trials + concentration)
            - lgamma(a)
            - lgamma(b)
            + lgamma(concentration)
        )
        if count <= trials
        else 0.0
    )
    total = 0.0
    for x in range(count, trials + 1):
        total += term
        if term <= _NEGLIGIBLE * total:
            break
        if x < trials:
            term *= (trials - x) * (x + a) / ((x + 1) * (trials - x - 1 + b))
    return min(total, 1.0)


class Varied:
    """The coefficient of variation of people's shares, by the method of moments (Kleinman 1973), without one of them.

    Counts of ``varied_tail`` have the variance n s (1 - s) + n (n - 1) s^2 cv^2. The estimate is drawn towards a usual
    coefficient, as if counts with a sum of n (n - 1) s^2 of ``weight`` had shown it.
    """

    def __init__(self, usual: float, weight: float) -> None:
        self._usual = usual
        self._excess, self._of = usual**2 * weight, weight

    def add(self, count: int, trials: float, share: float) -> None:
        """Add a person's count."""
        excess, of = self._parts(count, trials, share)
        self._excess, self._of = self._excess + excess, self._of + of

    def _parts(self, count: int, trials: float, share: float) -> tuple[float, float]:
        chance, of = trials * share * (1 - share), trials * (trials - 1) * share**2
        most = _FAR**2 * (chance + of * self._usual**2)
        return min((count - trials * share) ** 2, most) - chance, of

    @property
    def variation(self) -> float:
        """The coefficient of all, at least half the usual one."""
        return self.without(0, 0, 0.0)

    def without(self, count: int, trials: float, share: float) -> float:
        """Return the coefficient of the others, at least half the usual one."""
        excess, of = self._parts(count, trials, share)
        return max(sqrt(max((self._excess - excess) / (self._of - of), 0.0)), self._usual / 2)


def fisher_both(one: float, other: float) -> float:
    """Return the chance of two chances with so small a product: x (1 - ln x) (Fisher 1932, for two tests)."""
    x = max(one * other, 1e-300)
    return x * (1 - log(x))


def fisher_greater(ours: tuple[int, int], others: tuple[int, int]) -> float:
    """Return the one-sided p-value of Fisher's exact test: as many hits or more of ours, given all four sums.

    Both arguments are (hits, misses).
    """
    mine, hits, total = sum(ours), ours[0] + others[0], sum(ours) + sum(others)
    rest = total - mine - hits
    mode = (mine + 1) * (hits + 1) // (total + 2)
    return _tail(ours[0], max(0, -rest), mode, lambda x: (hits - x) * (mine - x) / ((x + 1) * (rest + x + 1)))


def _tail(count: int, lowest: int, mode: int, ratio: Callable[[int], float]) -> float:
    """Return P(X >= count) of a log-concave distribution on the integers from ``lowest``.

    ``ratio(x)`` is P(x + 1) / P(x). Terms are summed relative to the term of ``mode``, which is 1. The sum stops once a
    geometric series bounds the remaining terms as negligible.
    """
    if count <= lowest:
        return 1.0
    above = below = 0.0
    x, term = mode, 1.0
    while term:
        if x >= count:
            above += term
        else:
            below += term
        step = ratio(x)
        x, term = x + 1, term * step
        if x > count and step < 1 and term <= _NEGLIGIBLE * (1 - step) * above:
            break
    x, term = mode, 1.0
    while x > lowest:
        step = 1 / ratio(x - 1)
        x, term = x - 1, term * step
        if x >= count:
            above += term
        else:
            below += term
        if step < 1 and term <= _NEGLIGIBLE * (1 - step) * (above + below):
            break
    return above / (above + below)


def normal_p(score: float) -> float:
    """Return the two-sided p-value of a standard normal score."""
    return erfc(abs(score) / sqrt(2))


def student_p(score: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    import mpmath

    with mpmath.workdps(_DIGITS):
        square = mpmath.mpf(score) ** 2
        return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + square), regularized=True))


@lru_cache(4096)
def student_quantile(level: float, freedom: float) -> float:
    """Return the t that a two-sided interval of this level reaches to, e.g. 1.96 for 0.95 at infinite freedom."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    reach, step = z + (z**3 + z) / (4 * freedom), 1.0  # Cornish and Fisher 1938, first term
    scale = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - log(pi * freedom) / 2
    while abs(step) > _CLOSE:  # Newton's method on logarithms, in which both the tail and its slope are nearly straight
        p = student_p(reach, freedom)
        density = exp(scale - (freedom + 1) / 2 * log1p(reach**2 / freedom))
        step = log(p / (1 - level)) * p / (2 * density * reach)
        reach *= exp(step)
    return reach


def student_interval(mean: float, squares: float, n: int, lowest: float, highest: float) -> list[float] | None:
    """Return Student's 95 % interval of a mean of ``n`` values on a bounded scale; one value has none.

    ``squares`` is the sum of squared distances from the mean. With few values the reach passes the ends of the scale;
    the interval stops there, because no mean lies beyond: 2 and 4 on 1 to 5 give 1 to 5, not -9.7 to 15.7.
    """
    if n < 2:  # noqa: PLR2004 - one value has no spread
        return None
    reach = student_quantile(0.95, n - 1) * sqrt(squares / (n - 1) / n)
    return [max(mean - reach, lowest), min(mean + reach, highest)]


class Sample(NamedTuple):
    """A sample's size, mean and variance (with n - 1)."""

    size: int
    mean: float
    variance: float


def welch_interval(ours: Sample, theirs: Sample, level: float) -> tuple[float, float]:
    """Return the interval of the difference between two means with unequal variances (Welch 1947)."""
    parts = [(one.variance / one.size, one.size - 1) for one in (ours, theirs)]
    squared = sum(part for part, _ in parts)
    freedom = squared**2 / sum(part**2 / less for part, less in parts)
    reach = student_quantile(level, freedom) * sqrt(squared)
    return ours.mean - theirs.mean - reach, ours.mean - theirs.mean + reach


def wilson_interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927; the form of Newcombe 1998)."""
    share, divisor = hits / of, 2 * (of + _Z**2)
    middle = (2 * of * share + _Z**2) / divisor
    reach = _Z / divisor * sqrt(4 * of * share * (1 - share) + _Z**2)
    return (middle - reach if hits else 0.0), (middle + reach if hits < of else 1.0)


def one_rate_p(groups: Sequence[tuple[int, int]]) -> float:
    """Return the p-value of equal rates in all groups of (hits, misses): Pearson's chi-squared test.

    Two groups get Yates's correction. The groups must hold both hits and misses, and none may be empty.
    """
    import mpmath

    sums = [sum(column) for column in zip(*groups, strict=True)]
    statistic = 0.0
    for group in groups:
        for seen, column in zip(group, sums, strict=True):
            expected = sum(group) * column / sum(sums)
            off = abs(seen - expected)
            if len(groups) == 2:  # noqa: PLR2004 - one degree of freedom
                off -= min(0.5, off)
            statistic += off**2 / expected
    with mpmath.workdps(_DIGITS):
        return float(mpmath.gammainc((len(groups) - 1) / 2, statistic / 2, regularized=True))


def never_rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the least-squares fit that never rises (isotonic regression by pooling adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # value, weight, how many
    for value, weight in zip(values, weights, strict=True):
        block = value, weight, 1
        while blocks and blocks[-1][0] <= block[0]:
            (left, heavy, many), (right, light, few) = blocks.pop(), block
            block = (left * heavy + right * light) / (heavy + light), heavy + light, many + few
        blocks.append(block)
    return [value for value, _, many in blocks for _ in range(many)]


class Survival(NamedTuple):
    """The share that remains at a time, with its interval where the formula gives one."""

    share: float
    interval: tuple[float, float] | None


def survival(left: Iterable[float], here: Iterable[float], at: Sequence[float]) -> list[Survival]:
    """Return the share that remains at each time (Kaplan and Meier 1958; 95 % log-log interval, Greenwood's variance).

    ``left`` are the times after which a subject left. ``here`` are the times of the others so far (censored).
    """
    ends = sorted([(time, 1) for time in left] + [(time, 0) for time in here])
    steps = [(-inf, Survival(1.0, (1.0, 1.0)))]
    share, variance, place = 1.0, 0.0, 0
    while place < len(ends):
        time, risk, gone = ends[place][0], len(ends) - place, 0
        while place < len(ends) and ends[place][0] == time:
            gone += ends[place][1]
            place += 1
        share *= (risk - gone) / risk
        interval = None
        if 0 < share < 1:
            variance += gone / (risk * (risk - gone))
            reach = _Z * sqrt(variance) / -log(share)
            interval = exp(log(share) * exp(reach)), exp(log(share) * exp(-reach))
        steps.append((time, Survival(share, interval)))
    steps.append((inf, steps[-1][1]))
    return [next(found for (begin, found), (end, _) in pairwise(steps) if begin <= time < end) for time in at]
