"""R9, outlier among peers: goodwill far above peers' for the same work, shown beside outcomes: it may be right."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import fsum, log, sqrt
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, REMEMBERED_SECONDS, GuardHistory
from domain.statistics import Varied, fisher_both, student_p, varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.abuse.peers import PeerRates

RULE = Rule("R9", 4, "outlier among peers", {"days": 30, "peers": 8, "contacts": 20, "z": 1.0, "times": 1.5, "p": 1e-3})
_LEAST_GIFTS = 3.0
_PRIOR = 10.0
_PRIOR_PEERS, _USUAL_SPREAD = 8, 0.45
_MONTHLY, _STEADY = 0.1, 1000.0
"""The usual coefficient of variation of an honest agent's share of goodwill from month to month, and its weight."""


class Others:
    """The values of a group of agents, and each value's distance from all others, at two look-ups a query."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = sorted(values)
        self._deviations: dict[float, list[float]] = {}

    def without(self, value: float) -> tuple[float, float]:
        """Return the median of the others, and their spread.

        The spread is MAD / 0.6745 (Iglewicz and Hoaglin 1993), or that of the mean deviation where MAD is 0.
        """
        middle = _median_without(self._values, value)
        deviations = self._deviations.get(middle)
        if deviations is None:  # leaving one value out gives at most three different medians
            deviations = self._deviations[middle] = sorted(abs(other - middle) for other in self._values)
        spread = _median_without(deviations, abs(value - middle)) / 0.6745
        mean_deviation = (fsum(deviations) - abs(value - middle)) / (len(deviations) - 1)
        return middle, spread or 1.253314 * mean_deviation

    def __len__(self) -> int:
        return len(self._values)


def _median_without(ordered: list[float], value: float) -> float:
    """Return the median of a sorted list without one of its values."""
    at, number = bisect_left(ordered, value), len(ordered) - 1
    low, high = ((number - 1) // 2, number // 2)
    return (ordered[low + (low >= at)] + ordered[high + (high >= at)]) / 2


class _Month(NamedTuple):
    """An agent's work in a window: money and gifts given, and expected of peers for the same contacts and days."""

    given: int
    expected: float
    gifts: int
    expected_gifts: float
    contacts: float
    evidence: list[int]

    @property
    def level(self) -> float:
        """The logarithm of given to expected money, drawn towards 0 by a tenth of the expectation."""
        return log((self.given + 0.1 * self.expected) / (1.1 * self.expected))

    @property
    def noise(self) -> float:
        """The variance of the level that comes from the number of gifts alone, with amounts that differ as much."""
        return 2 / self.expected_gifts


def _above(month: _Month, everybody: Others, noise: float) -> tuple[float, float]:
    """Return the distance from peers in spreads, and its one-sided p-value by Student's t.

    The spread of a few peers says little. So it is drawn towards the usual spread of honest people, as if eight more
    peers had been seen (moderated t; Smyth 2004). An agent with fewer gifts than peers varies more.
    """
    middle, spread = everybody.without(month.level)
    peers = len(everybody) - 1
    variance = (_PRIOR_PEERS * _USUAL_SPREAD**2 + peers * spread**2) / (_PRIOR_PEERS + peers)
    score = (month.level - middle) / sqrt(variance + max(month.noise - noise, 0.0))
    return score, student_p(score, _PRIOR_PEERS + peers) / 2 if score > 0 else 1.0


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return outliers of each role and currency by two chances: far above peers, and above the agent's own past.

    The expectation is peers' rate for the same contacts on the same days (``domain.abuse.peers``) times the mean amount
    of the team's same role. So a generous team, a recall week or a desk for hard cases explains itself. The first
    chance is a moderated t-test of log(given / expected). The second is a beta-binomial tail: so much of the agent's
    goodwill within the window, given that of the days before and both expectations (the conditional test of two Poisson
    rates; Przyborowski and Wilenski 1940), with the variation from month to month that the others have. An agent may be
    generous for ever, so the second chance is 1 where earlier days are unknown. Fisher's method combines both, as in
    R3.
    """
    days = parameters["days"]
    starts = end - REMEMBERED_SECONDS, end - days * DAY
    before, now = _months(history, starts, end, parameters["contacts"])
    groups = defaultdict[tuple[str, str], dict[str, _Month]](dict)
    for (agent, currency), month in now.items():
        groups[history.role(agent, end), currency][agent] = month
    found: list[RuleFinding] = []
    tests = 0
    steady = Varied(_MONTHLY, _STEADY)
    grew = {
        key: (month.gifts, month.gifts + earlier.gifts, _share(month, earlier))
        for key, month in now.items()
        if (earlier := before.get(key)) is not None
    }
    for grown_by in grew.values():
        steady.add(*grown_by)
    for (_, currency), months in groups.items():
        everybody = Others(month.level for month in months.values())
        noise = median(month.noise for month in months.values())
        peers = len(everybody) - 1
        if peers < parameters["peers"]:
            continue
        for agent, month in months.items():
            if month.given < parameters["times"] * month.expected:
                continue
            tests += 1
            score, above = _above(month, everybody, noise)
            growth = grew.get((agent, currency))
            grown = 1.0 if growth is None else varied_tail(*growth, steady.without(*growth))
            p = fisher_both(above, grown)
            if score > parameters["z"] and p < parameters["p"]:
                text = (
                    f"{agent} gave {money(month.given, currency)} in {days} days ({month.contacts:.0f} contacts), "
                    f"where {peers} peers would give {money(round(month.expected), currency)} for the same work "
                    f"(score {score:.1f}, chance of the growth {grown:.1g}, of both {p:.1g})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, month.evidence, p))
    return found, tests


def _share(month: _Month, earlier: _Month) -> float:
    return month.expected_gifts / (month.expected_gifts + earlier.expected_gifts)


class _Spent:
    """An agent's goodwill in one currency and window."""

    __slots__ = ("evidence", "minor")

    def __init__(self) -> None:
        self.minor = 0
        self.evidence: list[int] = []


def _months(
    history: GuardHistory, starts: tuple[float, float], end: float, contacts: float
) -> tuple[dict[tuple[str, str], _Month], dict[tuple[str, str], _Month]]:
    """Return each agent's work between the two starts, and from the later one to ``end`` with enough contacts."""
    spent = defaultdict[tuple[str, str], _Spent](_Spent), defaultdict[tuple[str, str], _Spent](_Spent)
    cells = (
        defaultdict[tuple[str, str, str], list[int]](lambda: [0, 0]),
        defaultdict[tuple[str, str, str], list[int]](lambda: [0, 0]),
    )
    first, middle = starts
    for action in history.actions:
        if first <= action.at < end and action.goodwill:
            late = action.at >= middle
            mine = spent[late][action.agent, action.currency]
            mine.minor += action.minor
            mine.evidence.append(action.position)
            cell = cells[late][action.agent, action.role, action.currency]
            cell[0] += action.minor
            cell[1] += 1
    rates = history.peer_rates(end)
    earlier, later = (
        _window(history, (begin, until), rates, spent[late], cells[late], contacts if late else 0.0)
        for late, begin, until in ((False, first, middle), (True, middle, end))
    )
    return earlier, later


def _window(
    history: GuardHistory,
    window: tuple[float, float],
    rates: PeerRates,
    spent: dict[tuple[str, str], _Spent],
    cells: dict[tuple[str, str, str], list[int]],
    contacts: float,
) -> dict[tuple[str, str], _Month]:
    sums = defaultdict[tuple[str, ...], list[int]](lambda: [0, 0])
    for (agent, role, currency), (minor, number) in cells.items():
        for group in ((role, currency), (role, currency, history.unit(agent))):
            both = sums[group]
            both[0], both[1] = both[0] + minor, both[1] + number
    found: dict[tuple[str, str], _Month] = {}
    days = int(window[0] // DAY), int(window[1] // DAY)
    for (agent, currency), mine in spent.items():
        work = rates.of(agent, *days)
        if work.contacts < contacts or work.expected < _LEAST_GIFTS:
            continue
        given, gifts, role = mine.minor, len(mine.evidence), history.role(agent, rates.end)
        total, number = sums[role, currency]
        mean = max(total - given, 0) / max(number - gifts, 1) or given / gifts
        total, number = sums[role, currency, history.unit(agent)]
        mean = (max(total - given, 0) + _PRIOR * mean) / (max(number - gifts, 0) + _PRIOR)
        found[agent, currency] = _Month(given, work.expected * mean, gifts, work.expected, work.contacts, mine.evidence)
    return found
