"""Comparison of `report loyalty` with its oracle: SQL finds windows and pairs, scipy computes the statistics.

A bootstrap interval of many values is compared with the one that the estimate's standard error gives, within a quarter
of its half width. That of few values is no normal distribution's: each of its edges must lie between the quantiles that
1,000 draws can reach.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy import linalg, stats

from projections.reports.loyalty import NOBODY, loyalty_report
from tests.support.documents import Document
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DAYS = (30, 90, 180)
DESCRIPTION = "a description: customers are helped after a problem, and the problem alone changes their behaviour"
NOT_AN_EFFECT = "not an effect: customers who were helped may differ in ways that are not recorded"
_BY_PROBLEM = (
    "customers with the same reason and channel within thirty days, not helped until a day later, most similar in "
    "orders, recency, spend, tenure and date; each used once"
)
_BY_DAY = (
    "any customer who had bought before and had not been helped by then, on the same day, most similar in orders, "
    "recency, spend and tenure; each used once (no problems of customers who were not helped are recorded)"
)
COVARIATES = ("orders", "recency", "spend", "tenure", "date")
type Rows = list[Document]


def loyalty_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the figures of `report loyalty` that differ from the oracle's: totals, and retention by cohort."""
    found, oracle = found or ledger.report(loyalty_report, ledger.published), ledger.figures("retention")
    cohorts: dict[str, Rows] = {}
    for one in oracle["retention"]:
        shares = [{"days": days, **one[f"days_{days}"]} for days in DAYS]
        line = {"cohort": one["cohort"], "customers": one["customers"], "bought_again": shares}
        cohorts.setdefault(one["currency"], []).append(line)
    shown = {one["currency"]: one["retention"] for one in found["currencies"] if one["retention"]}
    totals = {one["currency"]: one["purchases"] for one in found["currencies"] if one["purchases"]}
    lines = differences(totals, {one["currency"]: one["n"] for one in oracle["purchases"]}, "purchases")
    lines += differences(shown, cohorts, "retention") + differences(found["by_time"], "recorded", "by_time")
    lines += differences(found["position"], len(ledger.events), "position")
    return lines + differences(found["main_window_days"], 90, "main_window_days")


def value_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the figures of `report loyalty` over a `LoyaltyHistory` that differ from the oracle's, at all levels."""
    found = found or ledger.report(loyalty_report, ledger.published)
    pounds = next(one for one in found["currencies"] if one["currency"] == "GBP")
    lines = loyalty_differences(ledger, found)
    by_problem = _value_of(ledger).oracle["design"][0]["by_problem"]
    lines += differences(pounds.get("controls"), _BY_PROBLEM if by_problem else _BY_DAY, "controls")
    for other in found["currencies"]:
        if other["currency"] == "USD":  # actions alone
            helped = {"purchases": 0, "treated": 1, "told_by_sales": False, "why": "no purchase is recorded"}
            lines += differences({name: other.get(name) for name in helped}, helped, "USD")
        elif other["currency"] != "GBP":  # no action and no return is recorded in it
            nothing = {"treated": 0, "told_by_sales": True, "why": NOBODY, "ladder": []}
            lines += differences({name: other.get(name) for name in nothing}, nothing, other["currency"])
    if not by_problem:  # controls are drawn at random from all customers
        return lines
    return lines or _value_of(ledger).differences(pounds)


_values: WeakKeyDictionary[HistoryLedger, _Value] = WeakKeyDictionary()


def _value_of(ledger: HistoryLedger) -> _Value:
    """Return the oracle's figures of a ledger, computed once."""
    if ledger not in _values:
        _values[ledger] = _Value(ledger.figures("loyalty"))
    return _values[ledger]


class _Value:
    """The oracle's figures of customers' value in pounds."""

    def __init__(self, oracle: dict[str, Rows]) -> None:
        self.oracle = oracle
        self.helped: Rows = oracle["helped_customers"]
        self.of = {one["customer"]: one for one in self.helped}
        self._memory: dict[object, Any] = {}
        self.matched = {one["customer"] for one in oracle["pairs"] if one["matched"]}

    def differences(self, found: Document) -> list[str]:
        """Return the places that differ."""
        lines = differences(found["treated"], len(self.helped), "treated")
        lines += [] if found["told_by_sales"] is False else ["told_by_sales: actions are recorded"]
        lines += differences(found["summary"], [self._summary(days) for days in DAYS], "summary")
        for ladder, days in zip(found["ladder"], DAYS, strict=True):
            lines += differences(ladder["days"], days, "ladder.days")
            spending, coming_back = self._once(days, partial(self._ladder, days))
            lines += _estimates(ladder["spending"], spending, f"{days}.spending")
            lines += _estimates(ladder["coming_back"], coming_back, f"{days}.coming_back")
        for name, groups in found["groups"].items():
            lines += self._groups(name, groups)
        for name, column in (("return_rates", "came"), ("repeat_claims", "again")):
            rates = [
                {"days": days, **_share([one[column] for one in self._windows(days, "after_known")])} for days in DAYS
            ]
            lines += differences(found[name], rates, name)
        lines += self._payback(found["payback"])
        return lines + self._kept(found["keep_item"]) + self._waited(found["waiting"])

    def _once(self, key: object, make: Callable[[], Any]) -> Any:
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def _ladder(self, days: int) -> tuple[Rows, Rows]:
        return [self._before_after(days), self._parallel(days)], list(self._coming_back(days))

    def _windows(self, days: int, known: str) -> Rows:
        return [one | self.of[one["customer"]] for one in self.oracle["windows"] if one["days"] == days and one[known]]

    def _pairs(self, days: int, known: str, *, matched: bool = True) -> Rows:
        return [
            one
            for one in self.oracle["pairs"]
            if one["days"] == days and one[known] and (not matched or one["customer"] in self.matched)
        ]

    def _summary(self, days: int) -> Document:
        some = [one for one in self._windows(days, "known") if one["had"]]
        names = (("mean_before", "before"), ("mean_after", "after"), ("mean_cost", "cost"))
        means = {name: _money(fmean(one[column] for one in some)) if some else None for name, column in names}
        ends = {f"{name}_interval": _student([one[column] for one in some]) for name, column in names}
        return {"days": days, "n": len(some), **means, **ends}

    def _before_after(self, days: int) -> Document:
        some = [one for one in self._windows(days, "known") if one["had"]]
        if not some:
            return _refused(1, "before and after", "no customer's windows are complete on both sides", 0, 0)
        usual = [one["before"] - one["earlier"] for one in some if one["earlier_known"]]
        caveats = [DESCRIPTION]
        if len(usual) >= 20 and (p := _zero_p(usual)) < 0.05:
            more = "more" if fmean(usual) > 0 else "less"
            unusual = "purchases had changed before, and return to normal without help (regression to the mean)"
            caveats.append(f"{unusual}: {more} in the days before than in those before them (p = {p:.2g})")
        change = [one["after"] - one["before"] for one in some]
        return _mean(1, "before and after", change, 0, caveats, _money)

    def _parallel(self, days: int) -> Document:
        method = "difference in differences"
        some = [one for one in self._pairs(days, "all_known", matched=False) if one["control_had"]]
        n = len(some)
        if n < 20:
            return _refused(3, method, "fewer than 20 with two windows before and one after", n, n)
        both = [list(zip(one["spending"], one["control_spending"], strict=True)) for one in some]
        gaps = [[mine - theirs for mine, theirs in one] for one in both]
        p = _zero_p([before - earlier for earlier, before, _ in gaps])
        if p < 0.05:
            return _refused(3, method, f"they did not run in parallel before (p = {p:.2g})", n, n)
        caveats = [NOT_AN_EFFECT, f"parallel before, as far as can be seen (p = {p:.2g})"]
        return _mean(3, method, [after - before for _, before, after in gaps], n, caveats, _money)

    def _matched(self, days: int, method: str, some: Rows) -> Document:
        n = len(some)
        if n < 20:
            return _refused(2, method, "fewer than 20 could be matched", n, n)
        design = np.array([[1.0, *one["theirs"]] for one in some])
        came = np.array([float(one["control_came"]) for one in some])
        slopes = linalg.lstsq(design, came)[0][1:]
        gaps = [
            float(one["came"]) - float(one["control_came"]) - float(np.dot(one["difference"], slopes)) for one in some
        ]
        every = [one["difference"] for one in self._pairs(days, "matched")]
        means = [fmean(one[place] for one in every) for place in range(5)]
        caveats = [NOT_AN_EFFECT]
        if off := [name for name, mean in zip(COVARIATES, means, strict=True) if abs(mean) > 0.1]:
            caveats.append(f"after matching they still differ in {', '.join(off)}")
        earlier = [float(one["earlier_came"]) - float(one["control_earlier"]) for one in some if one["earlier_known"]]
        if len(earlier) < 20:
            caveats.append("too short a history to see whether they differed before (fewer than 20 pairs)")
        elif _zero_p(earlier) < 0.05:
            caveats.append("they differed before anything had happened (placebo): selection")
        found = _mean(2, method, gaps, n, caveats, float)
        return found | {"value": _Around(found["value"], 1e-6)}  # a regression on dates since 1970 loses digits

    def _coming_back(self, days: int) -> Iterator[Document]:
        some = self._pairs(days, "known")
        yield self._matched(days, "matched", some)
        name = "matched, controls who were helped later left out"
        censored = self._matched(days, name, [one for one in some if not one["helped_later"]])
        if censored["value"] is not None:
            censored["caveats"].append("leaving them out uses knowledge of the future, which adds a bias of its own")
        yield censored
        for kind in (one["kind"] for one in self.oracle["kinds_near_the_limit"]):
            near = [one for one in self.oracle["near_the_limit"] if one["days"] == days and one["kind"] == kind]
            yield _step(f"discontinuity at the limit, {kind}", near)
        told = [one for one in self.oracle["first_problems"] if one["days"] == days]
        yield _trial([one for one in told if one["span"] == "trial"])
        ever, raised = [one for one in told if one["span"] == "ever"], self.oracle["raised"]
        for kind in sorted({one["kind"] for one in raised}):
            found = _staggered(ever, [one for one in raised if one["kind"] == kind], days * 86_400)
            yield found | {"method": f"staggered limits, {kind} for agent"}

    def _groups(self, name: str, groups: Rows) -> list[str]:
        labels = [one[name] for one in self.helped]
        order = sorted(set(labels), key=lambda one: (-labels.count(one), one))
        lines = differences(
            [(one[name], one["treated"]) for one in groups], [(one, labels.count(one)) for one in order]
        )
        pairs = self._pairs(90, "known")
        expected = self._once(
            name,
            lambda: [
                self._matched(90, "matched", [one for one in pairs if self.of[one["customer"]][name] == label])
                for label in order
            ],
        )
        shown = [{key: value for key, value in one.items() if key not in (name, "treated")} for one in groups]
        return lines + _estimates(shown, expected, f"groups.{name}")

    def _payback(self, found: Document) -> list[str]:
        share = self.oracle["margins_known"][0]["share"]
        if share < 0.5:
            why = f"a margin is known for {share:.0%} of the purchases; half is needed"
            return differences(found, {"rung": 2, "day": None, "why": why}, "payback")
        some = {one["customer"] for one in self._pairs(180, "known")}
        if len(some) < 20:
            why = "fewer than 20 pairs with 180 complete days"
            return differences(found, {"rung": 2, "day": None, "n": len(some), "why": why}, "payback")
        of_pairs = [one["gaps"] for one in self.oracle["margins"] if one["customer"] in some]
        gaps = {day: [gap[day - 1] for gap in of_pairs] for day in range(1, 181)}
        costs = [self.of[customer]["cost"] for customer in some]
        cost = fmean(costs)
        day = next((day for day in range(1, 181) if fmean(gaps[day]) >= cost - 1e-9), None)
        why = NOT_AN_EFFECT if day else "not within 180 days"
        head: Document = {"rung": 2, "day": day, "n": len(some), "mean_cost": _money(cost), "why": why}
        head["mean_cost_interval"] = _student(costs)
        lines = differences({name: found.get(name) for name in head}, head, "payback")
        for point, days in zip(found["curve"], DAYS, strict=True):
            lines += differences(point["days"], days, "payback.days")
            expected = _mean(2, "", gaps[days], 0, [], _money)
            shown = {"value": point["margin"], "interval": point["interval"]}
            lines += _estimates([shown], [{name: expected[name] for name in ("value", "interval")}], f"payback.{days}")
        return lines

    def _kept(self, found: Document) -> list[str]:
        some = self._windows(90, "after_known")
        kept = [one["came"] for one in some if one["kind"] == "keep_item"]
        sent = [one["came"] for one in some if one["kind"] != "keep_item" and one["sent_back"]]
        head = {"rung": 1, "days": 90, "caveats": ["keeping an item is not assigned at random", DESCRIPTION]}
        head |= {"kept": _share(kept), "returned": _share(sent)}
        lines = differences({name: found[name] for name in head}, head, "keep_item")
        return lines + _sides(found, [(kept, sent)], "keep_item")

    def _waited(self, found: Document) -> list[str]:
        bands: dict[str, tuple[Rows, Rows]] = {}
        for one in self.helped:
            bands.setdefault(f"{one['kind']}, {one['band']}", ([], []))[one["escalated"]].append(one)
        common = sorted(name for name, sides in bands.items() if all(sides))
        complete = {one["customer"]: one for one in self._windows(90, "after_known")}
        strata = [
            tuple(
                [complete[one["customer"]]["came"] for one in side if one["customer"] in complete]
                for side in bands[name]
            )
            for name in common
        ]
        caveat = "compared within the same kind and amount band; waiting is not assigned at random"
        once, later = ([came for sides in strata for came in sides[place]] for place in (0, 1))
        head = {"rung": 1, "days": 90, "caveats": [caveat, DESCRIPTION], "bands": common}
        head |= {"at_once": _share(once), "after_waiting": _share(later)}
        lines = differences({name: found[name] for name in head}, head, "waiting")
        return lines + _sides(found, strata, "waiting")


# ---------------------------------------------------------------------- estimates


def _student(amounts: Sequence[float]) -> list[Document] | None:
    """Return Student's 95 % interval of the mean of amounts, from zero on; of one amount there is none."""
    if len(amounts) < 2:
        return None
    if len({*amounts}) == 1:  # scipy has no interval of equal values
        return [_money(amounts[0])] * 2
    ends = stats.ttest_1samp(amounts, 0).confidence_interval(0.95)
    return [_money(max(0.0, float(ends.low))), _money(float(ends.high))]


def _refused(rung: int, method: str, why: str, n: int, controls: int) -> Document:
    return {"rung": rung, "method": method, "n": n, "controls": controls, "value": None, "interval": None} | {
        "caveats": [why],
        "called": "not an effect",
    }


def _mean(
    rung: int, method: str, values: Sequence[float], controls: int, caveats: list[str], show: Callable[[float], Any]
) -> Document:
    """Return the estimate of a mean; its interval is that of its standard error, in the form of `near`."""
    mean = fmean(values)
    interval: _Near | _Drawn | None = None
    if len(values) >= _MANY:
        interval = _Near(mean, 1.959964 * math.sqrt(variance(values) / len(values)), show)
    elif len(values) > 1:
        interval = _Drawn(values)
    found = {"rung": rung, "method": method, "n": len(values), "controls": controls, "value": show(mean)}
    return found | {"interval": interval, "caveats": caveats, "called": "not an effect"}


_MANY, _OFF = 20, 0.25
"""From so many values on, a bootstrap's edges lie within this part of the half width of the standard error's interval."""


class _Near:
    """An interval around a mean that a bootstrap may miss by a part of its half width."""

    def __init__(self, mean: float, reach: float, show: Callable[[float], Any] = float) -> None:
        self.edges, self.reach = (mean - reach, mean + reach), reach
        self.scale = 100 if show is _money else 1

    def holds(self, interval: Sequence[Any]) -> bool:
        """Return whether an interval is near."""
        edges = _edges_of(interval)
        most = _OFF * self.reach + (1 if self.scale == 100 else 1e-9)
        return all(abs(one - other) <= most for one, other in zip(edges, self.edges, strict=True))


class _Drawn:
    """The percentile bootstrap's interval of a mean of few values, with the error of 1,000 draws (Efron 1979)."""

    def __init__(self, values: Sequence[float]) -> None:
        some = np.sort(np.array(values, float))
        means = np.random.default_rng(1979).choice(some, (_DRAWS, some.size)).mean(axis=1)
        level = 0.025
        error = 5 * math.sqrt(level * (1 - level) * (1 / 1000 + 1 / _DRAWS))
        self.ranges = [
            (
                float(np.quantile(means, max(at - error, 0.0), method="lower")),
                float(np.quantile(means, min(at + error, 1.0), method="higher")),
            )
            for at in (level, 1 - level)
        ]

    def holds(self, interval: Sequence[Any]) -> bool:
        """Return whether both edges lie in their ranges; amounts are rounded to whole minor units."""
        off = 0.5 + 1e-6 if isinstance(interval[0], dict) else 1e-9
        edges = _edges_of(interval)
        return all(low - off <= one <= high + off for one, (low, high) in zip(edges, self.ranges, strict=True))


_DRAWS = 20_000


def _edges_of(interval: Sequence[Any]) -> list[float]:
    """Return the two edges of an interval, of amounts in pence; an edge in another currency is not a number."""
    low, high = (
        (float(one["amount"]) * 100 if one["currency"] == "GBP" else math.nan) if isinstance(one, dict) else float(one)
        for one in interval
    )
    return [low, high]


def _estimates(found: Rows, expected: Rows, where: str) -> list[str]:
    """Return the differences of estimates; a value or interval with a tolerance of its own is compared by it."""
    if len(found) != len(expected):
        return [f"{where}: {len(found)} estimates, the oracle has {len(expected)}"]
    lines = []
    for one, other in zip(found, expected, strict=True):
        place = f"{where}.{other.get('method', '')}"
        loose = {name: value for name, value in other.items() if isinstance(value, _Near | _Drawn | _Around)}
        strict = [{name: value for name, value in side.items() if name not in loose} for side in (one, other)]
        lines += differences(strict[0], strict[1], place)
        for name, value in loose.items():
            if one[name] is None or not value.holds(one[name]):
                lines.append(f"{place}.{name}: {one[name]}, the oracle has {vars(value)}")
    return lines


class _Around:
    """A number that cells of the estimator move by at most ``most``."""

    def __init__(self, value: float, most: float) -> None:
        self.value, self.most = value, most

    def holds(self, found: float) -> bool:
        """Return whether a number is near."""
        return abs(found - self.value) <= self.most


def _step(method: str, near: Rows) -> Document:
    """Return the discontinuity: two lines with triangular weights within half the limit (Hahn and others 2001)."""
    some = [(one["ratio"] - 1, float(one["came"])) for one in near if abs(one["ratio"] - 1) <= 0.5]
    below, above = [one for one in some if one[0] <= 0], [one for one in some if one[0] > 0]
    if min(len(below), len(above)) < 40:
        why = "fewer than 40 requests on a side of the limit"
        return _refused(3, method, why, len(below), len(above))
    p = _bunching_p([x for x, _ in some])
    if p < 0.05:
        why = f"amounts bunch at the limit (p = {p:.2g}): agents choose the side"
        return _refused(3, method, why, len(below), len(above))
    ends, errors = zip(*(_end_of_line(side) for side in (below, above)), strict=True)
    caveats = ["holds only for amounts near the limit", NOT_AN_EFFECT, f"no bunching seen (p = {p:.2g})"]
    found = _refused(3, method, "", len(below), len(above))
    value, reach = ends[0] - ends[1], 1.959964 * math.sqrt(sum(error**2 for error in errors))
    return found | {"value": _Around(value, 1e-4), "interval": _Near(value, reach), "caveats": caveats}


def _end_of_line(side: list[tuple[float, float]]) -> tuple[float, float]:
    """Return where a weighted line meets the limit, and its standard error (White's, for a bootstrap of cases)."""
    x, y = (np.array(column) for column in zip(*side, strict=True))
    design, weights = np.column_stack((np.ones(x.size), x)), 1 - np.abs(x) / 0.5
    bread = linalg.inv(design.T @ (design * weights[:, None]))
    line = bread @ (design.T @ (weights * y))
    meat = design * (weights * (y - design @ line))[:, None]
    return float(line[0]), math.sqrt((bread @ meat.T @ meat @ bread)[0, 0])


def _bunching_p(ratio: Sequence[float]) -> float:
    """Return the p-value of as many amounts beside the limit as the wider bands of each side lead to expect."""
    score, error = 0.0, 0.0
    for sign, side in ((1, [-x for x in ratio if x <= 0]), (-1, [x for x in ratio if x > 0])):
        near, middle, far = (
            sum(low <= x < high for x in side) for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 0.3 + 4e-17))
        )
        expected = max((3 * middle - far) / 2, 1.0)
        score += sign * math.log(max(near, 0.5) / expected)
        error += 1 / max(near, 0.5) + (9 * middle + far) / 4 / expected**2
    return float(2 * stats.norm.sf(abs(score) / math.sqrt(error)))


def _by_team(rows: Rows) -> dict[str, float]:
    came = defaultdict[str, list[float]](list)
    for one in rows:
        came[one["team"]].append(one["came"])
    return {team: fmean(values) for team, values in came.items()}


def _trial(rows: Rows) -> Document:
    """Return the trial's estimate: Welch's interval of the difference between teams' means."""
    method, means = "trial of version 3, refund for agent", _by_team(rows)
    drawn = {one["team"] for one in rows if one["drawn"]}
    ours, theirs = (
        [means[team] for team in means if team in drawn],
        [means[team] for team in means if team not in drawn],
    )
    if min(len(ours), len(theirs)) < 3:
        return _refused(4, method, "fewer than 3 teams on a side", len(ours), len(theirs))
    value = fmean(ours) - fmean(theirs)
    edges = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    interval = [value, value] if len({*ours}) == len({*theirs}) == 1 else [float(edges.low), float(edges.high)]
    caveats = ["the teams were drawn at random", f"by team: {len(ours)} drawn, {len(theirs)} others"]
    found = _refused(4, method, "", len(ours), len(theirs))
    return found | {"value": value, "interval": interval, "caveats": caveats, "called": "effect"}


def _staggered(rows: Rows, raised: Rows, window: int) -> Document:
    """Return the change of raised teams less that of teams that were not raised near it, as each raise finds it."""
    method, ours, theirs = "staggered limits, refund for agent", [], []
    names = {one["team"] for one in rows} | {team for one in raised for team in one["teams"]}
    for one in raised:
        near = {
            team
            for other in raised
            if abs(other["t"] - one["t"]) < 2 * window or other["t"] < one["t"]
            for team in other["teams"]
        }
        after = _by_team([row for row in rows if one["t"] < row["t"] <= one["t"] + window])
        before = _by_team([row for row in rows if one["t"] - window < row["t"] <= one["t"]])
        change = {team: after[team] - before[team] for team in after.keys() & before.keys()}
        mine = [change[team] for team in one["teams"] if team in change]
        others = [change[team] for team in names - near if team in change]
        if mine and len(others) >= 3:
            ours.append([value - fmean(others) for value in mine])
            theirs.append([value - fmean(others) for value in others])
    changed, unchanged = sum(map(len, ours)), sum(map(len, theirs))
    if changed < 3:
        why = "fewer than 3 teams were raised beside others that were not"
        return _refused(4, method, why, changed, unchanged)
    value = fmean(one for some in ours for one in some)
    inside = [some for some in ours if len(some) > 1]
    freedom = sum(len(some) - 1 for some in inside)
    every = [one for some in theirs for one in some]
    spread = sum(variance(some) * (len(some) - 1) for some in inside) / freedom if freedom else variance(every)
    shared = sum(
        (len(mine) / changed) ** 2 * variance(some) / len(some) for mine, some in zip(ours, theirs, strict=True)
    )
    reach = float(stats.t.ppf(0.975, max(changed + unchanged - 2 * len(ours), 1))) * math.sqrt(
        spread / changed + shared
    )
    caveats = ["raised in some teams first; the order was not random unless a trial says so"]
    caveats.append(f"{len(ours)} raises, {changed} teams raised")
    found = _refused(4, method, "", changed, unchanged)
    return found | {"value": value, "interval": [value - reach, value + reach], "caveats": caveats, "called": "effect"}


def _sides(found: Document, strata: Sequence[Any], where: str) -> list[str]:
    """Return the differences of a comparison within strata, weighted as Mantel and Haenszel (1959) do."""
    sizes = [sum(len(sides[place]) for sides in strata) for place in (0, 1)]
    if min(sizes) < 20:
        return differences([found["difference"], found["interval"]], [None, None], where)
    both = [sides for sides in strata if all(sides)]
    weights = [len(ours) * len(theirs) / (len(ours) + len(theirs)) for ours, theirs in both]
    shares = [(fmean(ours), fmean(theirs)) for ours, theirs in both]
    value = sum(weight * (a - b) for weight, (a, b) in zip(weights, shares, strict=True)) / sum(weights)
    spread = sum(
        weight**2 * (a * (1 - a) / len(ours) + b * (1 - b) / len(theirs))
        for weight, (a, b), (ours, theirs) in zip(weights, shares, both, strict=True)
    )
    reach = 1.959964 * math.sqrt(spread) / sum(weights)
    shown = {name: found[name] for name in ("difference", "interval")}
    return _estimates([shown], [{"difference": value, "interval": _Near(value, reach)}], where)


def _zero_p(values: Sequence[float]) -> float:
    """Return the p-value of a mean of zero."""
    if max(values) == min(values):
        return 1.0 if values[0] == 0 else 0.0
    return float(stats.ttest_1samp(values, 0).pvalue)


def _share(hits: Sequence[bool]) -> Document:
    k, n = sum(hits), len(hits)
    if not n:
        return {"k": 0, "n": 0, "share": None, "interval": None}
    edges = stats.binomtest(k, n).proportion_ci(method="wilson")
    return {"k": k, "n": n, "share": k / n, "interval": [float(edges.low), float(edges.high)]}


def _money(minor: float) -> Document:
    whole = round(minor)
    return {"amount": f"{'-' if whole < 0 else ''}{abs(whole) // 100}.{abs(whole) % 100:02}", "currency": "GBP"}
