"""Estimators of loyalty by evidence level, from a comparison before and after to a randomised trial.

Each returns an `Estimate`: a number with its evidence level, sample sizes, a 95 % interval and caveats. Where the data
does not support the method, the estimate says why. Random draws are seeded, so the same history gives the same numbers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from domain.analytics.loyalty.purchases import DAY, Floats, Ints, Moments
from domain.statistics import Sample, normal_p, student_p, student_quantile, welch_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from domain.analytics.loyalty.purchases import Flags, History

SEED = 20_251_117
REPEATS = 1000
"""Draws of the bootstrap."""
LEVEL = 0.95
FEWEST = 20
"""The fewest on each side of an estimate."""
DESCRIPTION = "a description: customers are helped after a problem, and the problem alone changes their behaviour"
UNUSUAL = "purchases had changed before, and return to normal without help (regression to the mean)"
NOT_AN_EFFECT = "not an effect: customers who were helped may differ in ways that are not recorded"


class EstimateFigures[Value](TypedDict):
    """An estimate as reports show it; its value is a share or money."""

    rung: int
    method: str
    n: int
    controls: int
    value: Value | None
    interval: list[Value] | None
    caveats: list[str]
    called: str


class Estimate(NamedTuple):
    """A number with its evidence; ``value`` is ``None`` where the data does not support it, and ``caveats`` say why."""

    rung: int
    method: str
    n: int
    controls: int
    value: float | None
    interval: tuple[float, float] | None
    caveats: tuple[str, ...]
    called: str = "not an effect"

    def shown_as[Value](self, show: Callable[[float], Value]) -> EstimateFigures[Value]:
        """Return the estimate as reports show it, its value and interval as ``show`` returns them."""
        return {
            "rung": self.rung,
            "method": self.method,
            "n": self.n,
            "controls": self.controls,
            "value": None if self.value is None else show(self.value),
            "interval": None if self.interval is None else [show(edge) for edge in self.interval],
            "caveats": list(self.caveats),
            "called": self.called,
        }


def refused(rung: int, method: str, why: str, n: int = 0, controls: int = 0) -> Estimate:
    """Return an estimate without a value, with the reason."""
    return Estimate(rung, method, n, controls, None, None, (why,))


def bootstrapped(values: Floats, seed: int = SEED) -> tuple[float, float]:
    """Return the 95 % interval of a mean of independent units, by the percentile bootstrap (Efron 1979).

    Above ``2 * _GROUPED`` values it draws from means of random groups. Their mean varies equally, and the time is
    bounded.
    """
    rng = np.random.default_rng(seed)
    if values.size > 2 * _GROUPED:
        shuffled = rng.permutation(values)[: values.size // _GROUPED * _GROUPED]
        values = shuffled.reshape(_GROUPED, -1).mean(axis=1)
    n, means = values.size, np.empty(REPEATS)
    for start in range(0, REPEATS, 50):
        means[start : start + 50] = values[rng.integers(0, n, (50, n))].mean(axis=1)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


_GROUPED = 2000


def before_after(history: History, treated: Moments, days: int) -> Estimate:
    """Return the change in spending from the days before to the days after, in minor units (evidence level 1).

    It counts customers with complete windows and an earlier purchase. A customer without one has no period to compare
    with.
    """
    window = days * DAY
    some = treated.some(history.covers(treated, -window, window) & (history.before(treated) > 0))
    if some.at.size == 0:
        return refused(1, "before and after", "no customer's windows are complete on both sides")
    change = history.spent_after(some, days) - history.spent_before(some, days)
    interval = bootstrapped(change) if change.size > 1 else None
    usual = some.some(history.covers(some, -2 * window, 0))
    unusual = history.spent_before(usual, days) - history.spent_before(usual, days, days)
    caveats = [DESCRIPTION]
    if unusual.size >= FEWEST and (p := _p_of(unusual)) < _SIGNIFICANT:
        more = "more" if unusual.mean() > 0 else "less"
        caveats.append(f"{UNUSUAL}: {more} in the days before than in those before them (p = {p:.2g})")
    return Estimate(1, "before and after", change.size, 0, float(change.mean()), interval, tuple(caveats))


class Pairs(NamedTuple):
    """Treated customers with their controls at the same places, and the differences that remain by covariate."""

    treated: Moments
    control: Moments
    place: Ints
    """The index of each pair's treated customer."""
    unlike: dict[str, float]
    """Standardised mean differences after matching."""
    covariates: tuple[Floats, Floats]


def some_pairs(pairs: Pairs, which: Ints | Flags) -> Pairs:
    """Return the pairs of a mask or of indices."""
    return Pairs(
        pairs.treated.some(which),
        pairs.control.some(which),
        pairs.place[which],
        pairs.unlike,
        (pairs.covariates[0][which], pairs.covariates[1][which]),
    )


def matched(pairs: Pairs, treated_came: Floats, control_came: Floats, method: str = "matched") -> Estimate:
    """Return by how much the treated exceed their matched controls (evidence level 2).

    Differences that matching left are removed by regression on the controls (Abadie and Imbens 2011).
    """
    n = treated_came.size
    if n < FEWEST:
        return refused(2, method, f"fewer than {FEWEST} could be matched", n, n)
    ours, theirs = pairs.covariates
    design = np.column_stack((np.ones(n), theirs))
    slopes = np.linalg.lstsq(design, control_came, rcond=None)[0][1:]
    gap = (treated_came - control_came) - (ours - theirs) @ slopes
    caveats = [NOT_AN_EFFECT]
    off = [name for name, size in pairs.unlike.items() if abs(size) > _UNLIKE]
    if off:
        caveats.append(f"after matching they still differ in {', '.join(off)}")
    return Estimate(2, method, n, n, float(gap.mean()), bootstrapped(gap), tuple(caveats))


_UNLIKE = 0.1


def placebo(history: History, pairs: Pairs, days: int) -> tuple[float, str | None]:
    """Return the p-value of a difference before any treatment, and a warning where there was one.

    The test uses the window before the last one before t0.
    """
    window = days * DAY
    inside = history.covers(pairs.treated, -2 * window, 0) & history.covers(pairs.control, -2 * window, 0)
    ours, theirs = pairs.treated.some(inside), pairs.control.some(inside)
    if ours.at.size < FEWEST:
        return 1.0, f"too short a history to see whether they differed before (fewer than {FEWEST} pairs)"
    earlier = [(history.count(one, -2 * window, -window - 1) > 0).astype(float) for one in (ours, theirs)]
    p = _p_of(earlier[0] - earlier[1])
    return p, "they differed before anything had happened (placebo): selection" if p < _SIGNIFICANT else None


_SIGNIFICANT = 0.05


def _p_of(values: Floats) -> float:
    if np.ptp(values) == 0:
        return 1.0 if values[0] == 0 else 0.0
    return student_p(float(values.mean() / (values.std(ddof=1) / np.sqrt(values.size))), values.size - 1)


def difference_in_differences(history: History, treated: Moments, control: Moments, days: int) -> Estimate:
    """Return the change in spending of the treated, less that of untreated customers at the same time (level 3).

    The estimate is refused where both were not parallel before (a t-test over the two windows before t0).
    """
    method, window = "difference in differences", days * DAY
    inside = history.covers(treated, -2 * window, window) & history.covers(control, -2 * window, window)
    inside &= (history.before(treated) > 0) & (history.before(control) > 0)
    ours, theirs = treated.some(inside), control.some(inside)
    n = ours.at.size
    if n < FEWEST:
        return refused(3, method, f"fewer than {FEWEST} with two windows before and one after", n, n)
    spent = [
        [history.spent_before(one, days, days), history.spent_before(one, days), history.spent_after(one, days)]
        for one in (ours, theirs)
    ]
    p = _p_of((spent[0][1] - spent[0][0]) - (spent[1][1] - spent[1][0]))
    if p < _SIGNIFICANT:
        return refused(3, method, f"they did not run in parallel before (p = {p:.2g})", n, n)
    change = (spent[0][2] - spent[0][1]) - (spent[1][2] - spent[1][1])
    caveats = (NOT_AN_EFFECT, f"parallel before, as far as can be seen (p = {p:.2g})")
    return Estimate(3, method, n, n, float(change.mean()), bootstrapped(change), caveats)


def discontinuity(ratio: Floats, came: Floats, *, repeats: int = REPEATS) -> Estimate:
    """Return the step in customers' returns at the limit, between requests just below it and just above (level 3).

    ``ratio`` is amount over limit. The estimate uses local lines on both sides with triangular weights, within half the
    limit (Hahn, Todd and van der Klaauw 2001). It is refused where amounts bunch at the limit, because agents then
    choose the side.
    """
    method = "discontinuity at the limit"
    near = np.abs(ratio - 1) <= _BANDWIDTH
    ratio, came = ratio[near] - 1, came[near]
    below = ratio <= 0
    n, above = int(below.sum()), int((~below).sum())
    if min(n, above) < 2 * FEWEST:
        return refused(3, method, f"fewer than {2 * FEWEST} requests on a side of the limit", n, above)
    p = _bunched(ratio)
    if p < _SIGNIFICANT:
        return refused(3, method, f"amounts bunch at the limit (p = {p:.2g}): agents choose the side", n, above)
    steps = _steps(ratio, came, repeats)
    low, high = np.nanquantile(steps[1:], ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    caveats = ("holds only for amounts near the limit", NOT_AN_EFFECT, f"no bunching seen (p = {p:.2g})")
    return Estimate(3, method, n, above, float(steps[0]), (float(low), float(high)), caveats)


_BANDWIDTH, _AT_THE_LIMIT = 0.5, 0.1


def _bunched(ratio: Floats) -> float:
    """Return the p-value of the counts of amounts in a narrow band on each side of the limit (after McCrary 2008).

    The expected count extrapolates the wider bands of each side by a line; its error is included.
    """
    logs, variance = 0.0, 0.0
    for side, sign in ((-ratio, 1), (ratio, -1)):  # below the limit, including the limit itself, then above it
        edges = (0.0, _AT_THE_LIMIT, 2 * _AT_THE_LIMIT, 3 * _AT_THE_LIMIT)
        inside = side >= 0 if sign == 1 else side > 0
        near, next_, far = (int((inside & (side >= low) & (side < high)).sum()) for low, high in pairwise(edges))
        expected = max((3 * next_ - far) / 2, 1.0)
        logs += sign * (np.log(max(near, 0.5)) - np.log(expected))
        variance += 1 / max(near, 0.5) + (9 * next_ + far) / 4 / expected**2
    return normal_p(logs / np.sqrt(variance))


def _steps(ratio: Floats, came: Floats, repeats: int) -> Floats:
    """Return the step between the two lines at the limit: of the requests, then of each bootstrap draw.

    Requests are counted in narrow cells of ratio and outcome, so a million take no longer than a thousand.
    """
    cell = np.floor((ratio + _BANDWIDTH) / (2 * _BANDWIDTH) * _CELLS).astype(np.int64)
    cell = cell * 4 + 2 * (ratio > 0) + (came > 0)
    _, place, counts = np.unique(cell, return_inverse=True, return_counts=True)
    x, y = np.bincount(place, ratio) / counts, np.bincount(place, came) / counts
    drawn = np.random.default_rng(SEED).multinomial(ratio.size, counts / ratio.size, repeats)
    weights = np.vstack((counts, drawn)) * np.maximum(1 - np.abs(x) / _BANDWIDTH, 0)
    ends = []
    for side in (x <= 0, x > 0):
        w, xs, ys = weights[:, side], x[side], y[side]
        s0, s1, s2 = w.sum(axis=1), w @ xs, w @ xs**2
        t0, t1 = w @ ys, w @ (xs * ys)
        with np.errstate(invalid="ignore", divide="ignore"):
            ends.append((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))  # where the weighted line meets the limit
    return np.asarray(ends[0] - ends[1])


_CELLS = 200


def trial(team: Ints, came: Floats, drawn: Flags) -> Estimate:
    """Return the difference between customers of drawn teams and of the others in a trial (evidence level 4).

    ``drawn`` is a mask by team. The unit is the team, because teams were drawn; the interval is Welch's over the teams'
    means.
    """
    method = "trial"
    means = _means(team, came, drawn.size)
    there = ~np.isnan(means)
    ours, theirs = means[there & drawn], means[there & ~drawn]
    if min(ours.size, theirs.size) < _FEWEST_TEAMS:
        return refused(4, method, f"fewer than {_FEWEST_TEAMS} teams on a side", ours.size, theirs.size)
    value, interval = _welch(ours, theirs)
    caveats = ("the teams were drawn at random", f"by team: {ours.size} drawn, {theirs.size} others")
    return Estimate(4, method, ours.size, theirs.size, value, interval, caveats, "effect")


_FEWEST_TEAMS = 3


def _means(team: Ints, values: Floats, teams: int) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(team, values, teams) / np.bincount(team, minlength=teams))


def _welch(ours: Floats, theirs: Floats) -> tuple[float, tuple[float, float]]:
    value = float(ours.mean() - theirs.mean())
    if np.ptp(ours) == 0 and np.ptp(theirs) == 0:
        return value, (value, value)
    drawn, others = (Sample(some.size, float(some.mean()), float(some.var(ddof=1))) for some in (ours, theirs))
    return value, welch_interval(drawn, others, LEVEL)


class LimitRaise(NamedTuple):
    """A limit that was raised for some teams at a time; ``others`` kept theirs around it."""

    at: int
    teams: Ints
    others: Ints


def staggered(team: Ints, at: Ints, came: Floats, raised: Sequence[LimitRaise], days: int) -> Estimate:
    """Return the change in teams with a raised limit, less that of the other teams (evidence level 4).

    Each raise is compared only with teams that were not raised yet (Callaway and Sant'Anna 2021). Then raises are
    averaged by their number of teams. The interval is Welch's over the teams' changes.
    """
    method, window, teams = "staggered limits", days * DAY, int(team.max()) + 1 if team.size else 0
    ours: list[Floats] = []
    theirs: list[Floats] = []
    for one in raised:
        after, before = (at > one.at) & (at <= one.at + window), (at > one.at - window) & (at <= one.at)
        change = _means(team[after], came[after], teams) - _means(team[before], came[before], teams)
        known = [change[some[some < teams]] for some in (one.teams, one.others)]
        mine, others = (some[~np.isnan(some)] for some in known)
        if mine.size and others.size >= _FEWEST_TEAMS:
            ours.append(mine - others.mean())
            theirs.append(others - others.mean())
    changed = np.concatenate(ours) if ours else np.empty(0)
    unchanged = np.concatenate(theirs) if theirs else np.empty(0)
    if changed.size < _FEWEST_TEAMS:
        return refused(
            4,
            method,
            f"fewer than {_FEWEST_TEAMS} teams were raised beside others that were not",
            changed.size,
            unchanged.size,
        )
    value = float(changed.mean())
    # Each raise has its own comparison teams, so all its teams share the error of their mean.
    shared = sum(
        (mine.size / changed.size) ** 2 * some.var(ddof=1) / some.size for mine, some in zip(ours, theirs, strict=True)
    )
    within = sum(((mine - mine.mean()) ** 2).sum() for mine in ours if mine.size > 1)
    freedom = sum(mine.size - 1 for mine in ours)
    spread = within / freedom if freedom > 0 else unchanged.var(ddof=1)
    error = float(np.sqrt(spread / changed.size + shared))
    reach = student_quantile(LEVEL, max(changed.size + unchanged.size - 2 * len(ours), 1)) * error
    caveats = (
        "raised in some teams first; the order was not random unless a trial says so",
        f"{len(ours)} raises, {changed.size} teams raised",
    )
    return Estimate(4, method, changed.size, unchanged.size, value, (value - reach, value + reach), caveats, "effect")
