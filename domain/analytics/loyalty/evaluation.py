"""The figures of customer value: estimates by evidence level, groups, payback and rates. Pure, over arrays."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from domain.analytics.averages import mean_interval
from domain.analytics.empowerment_gap import Share, share
from domain.analytics.loyalty import estimators
from domain.analytics.loyalty.estimators import FEWEST, Estimate, EstimateFigures, LimitRaise, Pairs
from domain.analytics.loyalty.matching import Untreated, match
from domain.analytics.loyalty.purchases import DAY, Flags, Floats, History, Ints, Moments, first_of_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from domain.analytics.loyalty.experiments import Raise, RandomisedTrial

WINDOWS_DAYS = (30, 90, 180)
MAIN_DAYS = 90
MATCHED_AT_MOST = 2500
"""The most treated customers that are matched, drawn at random; more would barely narrow the intervals."""
_HALF = 0.5
BY_PROBLEM = (
    "customers with the same reason and channel within thirty days, not helped until a day later, most similar in "
    "orders, recency, spend, tenure and date; each used once"
)
BY_DAY = (
    "any customer who had bought before and had not been helped by then, on the same day, most similar in orders, "
    "recency, spend and tenure; each used once (no problems of customers who were not helped are recorded)"
)


class ActionSample(NamedTuple):
    """Customers' first actions (all fields but ``all`` have their length), and the moments of all actions.

    ``stratum`` is the number of the reason and channel of an action's interaction, -1 without one.
    """

    of: Moments
    all: Moments
    cost: Ints
    labels: dict[str, list[str]]
    stratum: Ints
    escalated: Flags


class ProblemSample(NamedTuple):
    """Customers' problems, each with its stratum (as in the sample of actions) and its team (empty: unknown)."""

    of: Moments
    stratum: Ints
    team: list[str]


class Limited(NamedTuple):
    """Requests to which a limit for one action applied: moment, kind, and amount over limit."""

    of: Moments
    kind: list[str]
    ratio: Floats


type WireMoney = dict[str, str]
"""Money in its JSON form."""
type Show = Callable[[int], WireMoney]
"""Makes the JSON form of minor units."""


class WindowSummary(TypedDict):
    """Mean cost, and mean purchases before and after, of ``n`` customers; each interval is Student's."""

    days: int
    n: int
    mean_before: WireMoney | None
    mean_before_interval: list[WireMoney] | None
    mean_after: WireMoney | None
    mean_after_interval: list[WireMoney] | None
    mean_cost: WireMoney | None
    mean_cost_interval: list[WireMoney] | None


class Ladder(TypedDict):
    """The estimates over one window: spending in money, and shares of customers that came back."""

    days: int
    spending: list[EstimateFigures[WireMoney]]
    coming_back: list[EstimateFigures[float]]


class PaybackPoint(TypedDict):
    """The extra margin of treated customers up to a day."""

    days: int
    margin: WireMoney
    interval: list[WireMoney]


class Payback(TypedDict):
    """The day on which the extra margin reaches the cost, or ``None`` with the reason."""

    rung: int
    day: int | None
    n: NotRequired[int]
    mean_cost: NotRequired[WireMoney]
    mean_cost_interval: NotRequired[list[WireMoney] | None]
    curve: NotRequired[list[PaybackPoint]]
    why: str


class ReturnRate(Share):
    """The share of customers that came back within so many days."""

    days: int


class Sides(TypedDict):
    """The difference between two groups of customers in how many came back."""

    rung: int
    days: int
    caveats: list[str]
    difference: float | None
    interval: list[float] | None


class KeptOrReturned(Sides):
    """Customers that kept the item, and those that returned it."""

    kept: Share
    returned: Share


class OnceOrWaited(Sides):
    """Customers that were helped at once, and those that waited, in the ``bands`` that have both."""

    at_once: Share
    after_waiting: Share
    bands: list[str]


class ValueFigures(TypedDict):
    """The figures of customer value in one currency."""

    summary: list[WindowSummary]
    ladder: list[Ladder]
    controls: str
    groups: dict[str, list[dict[str, Any]]]
    """By label (kind, band, channel, team) `EstimateFigures`, each with its label's value and ``treated``."""
    payback: Payback
    return_rates: list[ReturnRate]
    repeat_claims: list[ReturnRate]
    keep_item: KeptOrReturned
    waiting: OnceOrWaited


def _mean(values: Floats | Ints, money: Show) -> tuple[WireMoney | None, list[WireMoney] | None]:
    """Return the mean of amounts in minor units and its interval; without amounts none, of one amount no interval."""
    if not values.size:
        return None, None
    mean = float(values.mean())
    ends = mean_interval(values.astype(np.float64), mean)
    return money(round(mean)), None if ends is None else [money(round(end)) for end in ends]


class CustomerValue:
    """The figures of one currency."""

    def __init__(
        self,
        buying: History,
        margins: History,
        actions: ActionSample,
        problems: ProblemSample,
        limited: Limited,
        returned: Moments,
        customers: int,
    ) -> None:
        self.buying, self.margins, self.actions, self.problems, self.limited = (
            buying,
            margins,
            actions,
            problems,
            limited,
        )
        self._returned = returned
        ones = np.ones(actions.all.at.size, np.int64)
        self._helped = History(actions.all.customer, actions.all.at, ones)
        self._helped.first, self._helped.last = buying.first, buying.last
        self._helped_from = self._helped.first_by_customer(customers)
        self._known_from = buying.first_by_customer(customers)
        self.pairs, self._at_random, self._random_place, self.design = self._paired()

    def figures(self, trials: Sequence[RandomisedTrial], raises: Sequence[Raise], money: Show) -> ValueFigures:
        """Return all figures as reports show them; ``money`` makes the JSON form of minor units."""
        return {
            "summary": [self.summary(days, money) for days in WINDOWS_DAYS],
            "ladder": [self.rungs(days, trials, raises, money) for days in WINDOWS_DAYS],
            "controls": self.design,
            "groups": {name: self.group(name) for name in self.actions.labels},
            "payback": self.payback(money),
            "return_rates": [self._rate(self.buying, days) for days in WINDOWS_DAYS],
            "repeat_claims": [self._rate(self._helped, days, after=0) for days in WINDOWS_DAYS],
            "keep_item": self.kept(),
            "waiting": self.waiting(),
        }

    def summary(self, days: int, money: Show) -> WindowSummary:
        """Return mean cost, and mean purchases before and after, of customers with complete windows (level 1)."""
        window, actions = days * DAY, self.actions
        some = self.buying.covers(actions.of, -window, window) & (self.buying.before(actions.of) > 0)
        kept = actions.of.some(some)
        n = int(some.sum())

        before, after, cost = (
            _mean(values, money)
            for values in (
                self.buying.spent_before(kept, days),
                self.buying.spent_after(kept, days),
                actions.cost[some],
            )
        )
        return {
            "days": days,
            "n": n,
            "mean_before": before[0],
            "mean_before_interval": before[1],
            "mean_after": after[0],
            "mean_after_interval": after[1],
            "mean_cost": cost[0],
            "mean_cost_interval": cost[1],
        }

    def _paired(self) -> tuple[Pairs, Moments, Ints, str]:
        actions, problems, helped_from = self.actions, self.problems, self._helped_from
        had = self.buying.before(actions.of) > 0
        with_problem = actions.stratum >= 0
        later = helped_from[problems.of.customer] > problems.of.at + DAY
        by_problem = with_problem.mean() >= _HALF and later.sum() >= actions.of.at.size * _HALF
        moments = problems.of.some(later) if by_problem else None
        strata = problems.stratum[later] if by_problem else None
        untreated = Untreated(self.buying, helped_from, moments, strata, self._known_from)
        place = np.flatnonzero(had & with_problem if by_problem else had)
        if place.size > MATCHED_AT_MOST:
            place = np.sort(np.random.default_rng(estimators.SEED).choice(place, MATCHED_AT_MOST, replace=False))
        pairs, at_random, other = match(self.buying, actions.of.some(place), actions.stratum[place], untreated)
        found = pairs._replace(place=place[pairs.place])
        return found, at_random, place[other], BY_PROBLEM if by_problem else BY_DAY

    # ------------------------------------------------------------------ estimates by evidence level

    def rungs(
        self,
        days: int,
        trials: Sequence[RandomisedTrial],
        raises: Sequence[Raise],
        money: Show,
    ) -> Ladder:
        """Return all estimates over a window: spending in money, return rates as shares."""
        buying, actions = self.buying, self.actions
        before = estimators.before_after(buying, actions.of, days)
        did = estimators.difference_in_differences(buying, actions.of.some(self._random_place), self._at_random, days)
        shares = [
            self.matched(days),
            self.matched(days, censored=True),
            *self._steps(days),
            *self._trials(days, trials),
            *self._staggered(days, raises),
        ]
        return {
            "days": days,
            "spending": [one.shown_as(lambda value: money(round(value))) for one in (before, did)],
            "coming_back": [one.shown_as(float) for one in shares],
        }

    def matched(self, days: int, *, censored: bool = False, some: Flags | None = None) -> Estimate:
        """Return the matched estimate over pairs with complete windows (evidence level 2).

        ``censored`` leaves out controls that were helped within the window.
        """
        pairs, window = self.pairs, days * DAY
        inside = self.buying.covers(pairs.treated, 0, window) & self.buying.covers(pairs.control, 0, window)
        if some is not None:
            inside &= some
        if censored:
            # Controls were not helped by the moment of their pair.
            inside &= self._helped_from[pairs.control.customer] > pairs.control.at + window
        kept = estimators.some_pairs(pairs, inside)
        name = "matched, controls who were helped later left out" if censored else "matched"
        came = self.buying.came(kept.treated, days), self.buying.came(kept.control, days)
        found = estimators.matched(kept, *came, name)
        if found.value is None:
            return found
        _, warning = estimators.placebo(self.buying, kept, days)
        caveats = [*found.caveats, *([warning] if warning else [])]
        if censored:
            caveats.append("leaving them out uses knowledge of the future, which adds a bias of its own")
        return found._replace(caveats=tuple(caveats))

    def _steps(self, days: int) -> list[Estimate]:
        """Return the discontinuity estimate of each kind with enough requests near its limit, or one refusal."""
        inside = self.buying.covers(self.limited.of, 0, days * DAY)
        kinds = np.array(self.limited.kind)
        found = []
        for kind in sorted(set(self.limited.kind)):
            some = inside & (kinds == kind)
            of = self.limited.of.some(some)
            first = first_of_each(of)
            one = estimators.discontinuity(self.limited.ratio[some][first], self.buying.came(of.some(first), days))
            found.append(one._replace(method=f"{one.method}, {kind}"))
        return found or [estimators.refused(3, "discontinuity at the limit", "no request met a limit for one action")]

    def _first_problems(self, days: int, within: RandomisedTrial | None = None) -> tuple[Moments, list[str]]:
        """Return customers' first problems with complete windows, during a trial if one is given, and their teams."""
        of = self.problems.of
        inside = self.buying.covers(of, 0, days * DAY)
        if within is not None:
            inside &= (of.at >= within.begins) & (of.at < within.ends)
        some = np.flatnonzero(inside)
        some = some[[bool(self.problems.team[place]) for place in some.tolist()]] if some.size else some
        some = some[first_of_each(of.some(some))] if some.size else some
        return of.some(some), [self.problems.team[place] for place in some.tolist()]

    def _trials(self, days: int, trials: Sequence[RandomisedTrial]) -> list[Estimate]:
        found = []
        for one in trials:
            of, teams = self._first_problems(days, one)
            names = sorted(set(teams))
            number = {name: at for at, name in enumerate(names)}
            team = np.array([number[name] for name in teams], np.int64)
            drawn = np.array([name in one.teams for name in names], bool)
            estimate = estimators.trial(team, self.buying.came(of, days), drawn)
            found.append(estimate._replace(method=f"trial of version {one.version}, {one.kind} for {one.role}"))
        return found or [estimators.refused(4, "trial", "no policy with a trial was in force")]

    def _staggered(self, days: int, raises: Sequence[Raise]) -> list[Estimate]:
        by_what: dict[tuple[str, str], list[Raise]] = defaultdict(list)
        for one in raises:
            by_what[one.role, one.kind].append(one)
        found = []
        for (role, kind), some in sorted(by_what.items()):
            of, teams = self._first_problems(days)
            names = sorted({*teams, *(team for one in some for team in one.teams)})
            number = {name: at for at, name in enumerate(names)}
            window = days * DAY
            raised = []
            for one in some:
                near = {
                    team
                    for other in some
                    if abs(other.at - one.at) < 2 * window or other.at < one.at
                    for team in other.teams
                }
                others = np.array([number[name] for name in names if name not in near], np.int64)
                raised.append(
                    LimitRaise(one.at, np.array([number[team] for team in sorted(one.teams)], np.int64), others)
                )
            team = np.array([number[name] for name in teams], np.int64)
            estimate = estimators.staggered(team, of.at, self.buying.came(of, days), raised, days)
            found.append(estimate._replace(method=f"{estimate.method}, {kind} for {role}"))
        return found or [estimators.refused(4, "staggered limits", "no policy raised a limit in some teams first")]

    # ------------------------------------------------------------------ groups, payback and rates

    def group(self, name: str) -> list[dict[str, Any]]:
        """Return the matched estimate for each value of a label, the most frequent first."""
        labels = np.array(self.actions.labels[name])
        of_pairs = labels[self.pairs.place]
        found: list[dict[str, Any]] = []
        for label in sorted(set(labels.tolist()), key=lambda one: (-int((labels == one).sum()), str(one))):
            estimate = self.matched(MAIN_DAYS, some=of_pairs == label)
            found.append({name: label, "treated": int((labels == label).sum()), **estimate.shown_as(float)})
        return found

    def payback(self, money: Show) -> Payback:
        """Return the first day on which the treated customers' extra margin reaches the cost of their actions."""
        days = max(WINDOWS_DAYS)
        known = len(self.margins) / max(len(self.buying), 1)
        if known < _HALF:
            why = f"a margin is known for {known:.0%} of the purchases; half is needed"
            return {"rung": 2, "day": None, "why": why}
        inside = self.buying.covers(self.pairs.treated, 0, days * DAY) & self.buying.covers(
            self.pairs.control, 0, days * DAY
        )
        kept = estimators.some_pairs(self.pairs, inside)
        n = kept.treated.at.size
        if n < FEWEST:
            return {"rung": 2, "day": None, "n": n, "why": f"fewer than {FEWEST} pairs with {days} complete days"}
        costs = self.actions.cost[kept.place]
        cost = float(costs.mean())
        reached: int | None = None
        curve: list[PaybackPoint] = []
        for day in range(1, days + 1):
            gap = self.margins.spent_after(kept.treated, day) - self.margins.spent_after(kept.control, day)
            if reached is None and gap.mean() >= cost:
                reached = day
            if day in WINDOWS_DAYS:
                interval = [money(round(edge)) for edge in estimators.bootstrapped(gap)]
                curve.append({"days": day, "margin": money(round(gap.mean())), "interval": interval})
        why = estimators.NOT_AN_EFFECT if reached else f"not within {days} days"
        found: Payback = {
            "rung": 2,
            "day": reached,
            "n": n,
            "mean_cost": money(round(cost)),
            "curve": curve,
            "why": why,
        }
        found["mean_cost_interval"] = _mean(costs, money)[1]
        return found

    def _rate(self, history: History, days: int, after: int = -1) -> ReturnRate:
        """Return the share of treated customers with complete windows that came back."""
        inside = self.buying.covers(self.actions.of, 0, days * DAY)
        came = history.count(self.actions.of.some(inside), after, days * DAY) > 0
        return {"days": days, **share(int(came.sum()), int(came.size))}

    def kept(self) -> KeptOrReturned:
        """Return how many customers came back to buy, after keeping the item and after returning it."""
        kinds = np.array(self.actions.labels["kind"])
        back = History(self._returned.customer, self._returned.at, np.ones(self._returned.at.size, np.int64))
        sent = (back.count(self.actions.of, -30 * DAY, 30 * DAY) > 0) & (kinds != "keep_item")
        kept, returned, difference, interval = self._compared(kinds == "keep_item", sent, np.zeros(sent.size, np.int64))
        return {
            "rung": 1,
            "days": MAIN_DAYS,
            "caveats": ["keeping an item is not assigned at random", estimators.DESCRIPTION],
            "kept": kept,
            "returned": returned,
            "difference": difference,
            "interval": interval,
        }

    def waiting(self) -> OnceOrWaited:
        """Return how many came back after an action at once and after an escalation, for the same kind and amount."""
        labels = self.actions.labels
        both = [f"{kind}, {band}" for kind, band in zip(labels["kind"], labels["band"], strict=True)]
        names, alike = np.unique(np.array(both), return_inverse=True)
        later = self.actions.escalated
        common = np.intersect1d(alike[later], alike[~later])
        inside = np.isin(alike, common)
        at_once, waited, difference, interval = self._compared(inside & ~later, inside & later, alike)
        caveat = "compared within the same kind and amount band; waiting is not assigned at random"
        return {
            "rung": 1,
            "days": MAIN_DAYS,
            "caveats": [caveat, estimators.DESCRIPTION],
            "at_once": at_once,
            "after_waiting": waited,
            "difference": difference,
            "interval": interval,
            "bands": [str(names[one]) for one in common],
        }

    def _compared(
        self, one: Flags, other: Flags, strata: Ints
    ) -> tuple[Share, Share, float | None, list[float] | None]:
        """Return the share of each side that came back, and the difference within strata with its interval."""
        complete = self.buying.covers(self.actions.of, 0, MAIN_DAYS * DAY)
        came = self.buying.came(self.actions.of, MAIN_DAYS)
        sides = one & complete, other & complete
        ours, theirs = (share(int(came[some].sum()), int(some.sum())) for some in sides)
        if min(ours["n"], theirs["n"]) < FEWEST:
            return ours, theirs, None, None
        counts = [
            [
                np.bincount(strata[some], weight, int(strata.max()) + 1)
                for weight in (np.ones(int(some.sum())), came[some])
            ]
            for some in sides
        ]
        difference, *interval = _difference(counts)
        return ours, theirs, difference, interval


def _difference(counts: Sequence[Sequence[Floats]]) -> tuple[float, float, float]:
    """Return the difference of shares within strata, and its 95 % bootstrap interval.

    Strata have Mantel and Haenszel's weights. ``counts`` hold, for each side, the number of customers by stratum, and
    how many of them came back.
    """
    (n, came), (others, others_came) = counts
    both = (n > 0) & (others > 0)
    n, came, others, others_came = n[both], came[both], others[both], others_came[both]
    weights = n * others / (n + others)
    weights = weights / weights.sum()
    rng = np.random.default_rng(estimators.SEED)
    draws = [
        rng.binomial(all_.astype(np.int64), k / all_, (estimators.REPEATS, n.size)) / all_
        for all_, k in ((n, came), (others, others_came))
    ]
    low, high = np.quantile((draws[0] - draws[1]) @ weights, (0.025, 0.975))
    return float((came / n - others_came / others) @ weights), float(low), float(high)
