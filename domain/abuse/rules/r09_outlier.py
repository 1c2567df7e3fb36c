"""R9, outlier among peers: goodwill far above peers' for the same work, shown beside outcomes: it may be right."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import fsum, log
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, REMEMBERED_SECONDS, GuardHistory
from domain.statistics import binomial_tail, normal_p

if TYPE_CHECKING:
    from collections.abc import Iterable

RULE = Rule("R9", 2, "outlier among peers", {"days": 30, "peers": 8, "contacts": 20, "z": 1.0, "times": 1.5, "p": 5e-4})
_LEAST_GIFTS = 3.0
_PRIOR = 10.0
_GROWN, _ALWAYS = 0.01, 1e-11
"""An agent that was no different before, or whose earlier days are unknown, needs a far smaller chance."""


class Others:
    """The values of a group of agents, and each value's distance from all others, at two look-ups a query."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = sorted(values)
        self._deviations: dict[float, list[float]] = {}

    def without(self, value: float) -> tuple[float, float]:
        """Return the median of the others, and the modified z-score of this value among them.

        z = 0.6745 (x - median) / MAD (Iglewicz and Hoaglin 1993); the mean deviation is used where MAD is 0.
        """
        middle = _median_without(self._values, value)
        deviations = self._deviations.get(middle)
        if deviations is None:  # leaving one value out gives at most three different medians
            deviations = self._deviations[middle] = sorted(abs(other - middle) for other in self._values)
        spread = _median_without(deviations, abs(value - middle))
        if spread:
            return middle, 0.6745 * (value - middle) / spread
        mean_deviation = (fsum(deviations) - abs(value - middle)) / (len(deviations) - 1)
        return middle, (value - middle) / (1.253314 * mean_deviation) if mean_deviation else 0.0

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


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return outliers of each role and currency by two chances: far above peers, and above the agent's own past.

    The expectation is peers' rate for the same contacts on the same days (``domain.abuse.peers``) times the mean amount
    of the team's same role. So a generous team, a recall week or a desk for hard cases explains itself. The first
    chance is the normal tail of the modified z-score of log(given / expected). The second is a binomial tail: so much
    of the agent's goodwill within the window, given that of the days before and both expectations (the conditional test
    of two Poisson rates; Przyborowski and Wilenski 1940). Honest agents may be generous for ever, so an agent that was
    no different before needs a far smaller chance. Fisher's method combines both, as in R3.
    """
    days = parameters["days"]
    now = _months(history, end - days * DAY, end, end, parameters["contacts"])
    before = _months(history, end - REMEMBERED_SECONDS, end - days * DAY, end, 0)
    groups = defaultdict[tuple[str, str], dict[str, _Month]](dict)
    for (agent, currency), month in now.items():
        groups[history.role(agent, end), currency][agent] = month
    found: list[RuleFinding] = []
    tests = 0
    for (_, currency), months in groups.items():
        everybody = Others(month.level for month in months.values())
        peers = len(everybody) - 1
        if peers < parameters["peers"]:
            continue
        for agent, month in months.items():
            if month.given < parameters["times"] * month.expected:
                continue
            tests += 1
            _, z = everybody.without(month.level)
            earlier = before.get((agent, currency))
            grown = 1.0
            if earlier is not None:
                share = month.expected_gifts / (month.expected_gifts + earlier.expected_gifts)
                grown = binomial_tail(month.gifts, month.gifts + earlier.gifts, share)
            x = max(normal_p(z) / 2 if z > 0 else 1.0, 1e-300) * max(grown, 1e-300)
            p = x * (1 - log(x))
            if z > parameters["z"] and p < (parameters["p"] if grown < _GROWN else _ALWAYS):
                text = (
                    f"{agent} gave {money(month.given, currency)} in {days} days ({month.contacts:.0f} contacts), "
                    f"where {peers} peers would give {money(round(month.expected), currency)} for the same work "
                    f"(modified z {z:.1f}, chance of the growth {grown:.1g}, of both {p:.1g})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, month.evidence, p))
    return found, tests


def _months(
    history: GuardHistory, start: float, end: float, asof: float, contacts: float
) -> dict[tuple[str, str], _Month]:
    """Return each agent's work in [start, end) where the contacts are enough."""
    rates = history.peer_rates(asof)
    spent = defaultdict[tuple[str, str], list[int]](list)
    evidence = defaultdict[tuple[str, str], list[int]](list)
    sums = defaultdict[tuple[str, ...], list[int]](lambda: [0, 0])
    for action in history.actions:
        if start <= action.at < end and action.goodwill:
            key = action.agent, action.currency
            spent[key].append(action.minor)
            evidence[key].append(action.position)
            everywhere = action.role, action.currency
            for group in (everywhere, (*everywhere, history.unit(action.agent))):
                both = sums[group]
                both[0], both[1] = both[0] + action.minor, both[1] + 1
    found: dict[tuple[str, str], _Month] = {}
    first, last = int(start // DAY), int(end // DAY)
    for (agent, currency), minors in spent.items():
        work = rates.of(agent, first, last)
        if work.contacts < contacts or work.expected < _LEAST_GIFTS:
            continue
        given, role = sum(minors), history.role(agent, asof)
        total, number = sums[role, currency]
        mean = max(total - given, 0) / max(number - len(minors), 1) or given / len(minors)
        total, number = sums[role, currency, history.unit(agent)]
        mean = (max(total - given, 0) + _PRIOR * mean) / (max(number - len(minors), 0) + _PRIOR)
        found[agent, currency] = _Month(
            given, work.expected * mean, len(minors), work.expected, work.contacts, evidence[agent, currency]
        )
    return found
