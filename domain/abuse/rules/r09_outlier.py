"""R9, outlier among peers: goodwill a contact far above peers'. It is shown beside outcomes, since it may be right."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import fsum
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardHistory

if TYPE_CHECKING:
    from collections.abc import Iterable

RULE = Rule(
    "R9", 1, "outlier among peers", {"days": 30, "peers": 8, "contacts": 20, "z": 3.5, "times": 1.5, "sigma": 3.0}
)


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


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return outliers among the agents of one role and currency, or of one team where it alone has enough.

    A comparison within the team keeps a generous team's members from being outliers.
    """
    start = end - parameters["days"] * DAY
    spent = defaultdict[tuple[str, str], dict[str, int]](lambda: defaultdict(int))
    squares = defaultdict[tuple[str, str], int](int)
    evidence = defaultdict[str, list[int]](list)
    for action in history.actions:
        if start <= action.at < end and action.goodwill:
            spent[action.role, action.currency][action.agent] += action.minor
            squares[action.agent, action.currency] += action.minor**2
            evidence[action.agent].append(action.position)
    found: list[RuleFinding] = []
    for (role, currency), by_agent in spent.items():
        each = {
            agent: (by_agent.get(agent, 0) / contacts, contacts)
            for agent in history.contacts
            if history.role(agent, end) == role
            and (contacts := history.contacts_between(agent, start, end)) >= parameters["contacts"]
        }
        everybody = Others(value for value, _ in each.values())
        teams = _teams(history, each, parameters["peers"])
        for agent, (value, contacts) in each.items():
            others = teams.get(history.teams.get(agent, ()), everybody)
            peers = len(others) - 1
            if peers < parameters["peers"]:
                continue
            usual, z = others.without(value)
            # The agent's own error counts, too, because a few large gifts in few contacts make a large mean.
            error = (max(squares[agent, currency] / contacts - value**2, 0.0) / contacts) ** 0.5
            far = value >= parameters["times"] * usual and value - parameters["sigma"] * error > usual
            if z > parameters["z"] and far:
                text = (
                    f"{agent} gave {money(round(value), currency)} a contact in {parameters['days']} days ({contacts} "
                    f"contacts), where {peers} peers give {money(round(usual), currency)} (modified z {z:.1f})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, evidence[agent]))
    return found, 0


def _teams(history: GuardHistory, each: dict[str, tuple[float, int]], enough: int) -> dict[tuple[str, ...], Others]:
    """Return, by teams, the values of all agents in one of them, where they are enough."""
    by_team = defaultdict[str, set[str]](set)
    for agent in each:
        for team in history.teams.get(agent, ()):
            by_team[team].add(agent)
    found: dict[tuple[str, ...], Others] = {}
    for teams in {history.teams.get(agent, ()) for agent in each}:
        mates = set[str]().union(*(by_team[team] for team in teams))
        if len(mates) > enough:
            found[teams] = Others(each[mate][0] for mate in mates)
    return found
