"""R1, just under the limit: an agent's amounts crowd just below the limit for one action, as peers' amounts do not."""

from __future__ import annotations

from collections import Counter, defaultdict

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import binomial_tail

RULE = Rule(
    "R1",
    2,
    "just under the limit",
    {"days": 30, "actions": 10, "near": 7, "fraction": 0.9, "times": 2.5, "p": 1e-4, "alike": 0.34},
)
_USERS = 3
"""An amount that so many people use is a price point."""
_PRIOR = 20.0
"""The weight of all peers beside those of the same team and reason, in actions."""


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings over the window that ends at ``end``, and the number of candidates.

    Binomial tail: the chance of so many of the agent's actions in [fraction L, L], where L is the limit, if each fell
    there as often as the others' of the same team and reason do, drawn towards the team's and then towards everybody's. A price point is
    no sign: an exact amount that three people use, the others at ``alike`` of the agent's share or more, is left out. Candidates have ``near`` such actions.
    """
    start = end - parameters["days"] * DAY
    found: list[RuleFinding] = []
    tests = 0
    for currency, actions in _alike(history, start, end).items():
        crowd = _Crowd(history, actions, parameters["fraction"])
        for agent, own in crowd.by_agent.items():
            if len(own) < parameters["actions"]:
                continue
            near = [
                action
                for action in own
                if crowd.near(action) and not crowd.is_price(agent, action.minor, parameters["alike"])
            ]
            if len(near) < parameters["near"]:
                continue
            tests += 1
            usual = crowd.usual(agent, parameters["alike"])
            p = binomial_tail(len(near), len(own), min(usual / len(own), 0.95))
            if p < parameters["p"] and len(near) >= parameters["times"] * usual:
                limit = near[-1].limit or 0
                text = (
                    f"{len(near)} of {len(own)} amounts by {agent} in {parameters['days']} days are between "
                    f"{parameters['fraction']:.0%} of the limit of {money(limit, currency)} and the limit itself, "
                    f"price points aside; for the same work of peers it would be {usual:.1f} (chance {p:.1g})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, [action.position for action in near], p))
    return found, tests


class _Crowd:
    """The actions of one currency: how often amounts fall near the limit, and how usual each amount is."""

    def __init__(self, history: GuardHistory, actions: list[ObservedAction], fraction: float) -> None:
        self._fraction = fraction
        self._unit = {agent: history.unit(agent) for agent in {action.agent for action in actions}}
        self.by_agent = defaultdict[str, list[ObservedAction]](list)
        self._sums = Counter[tuple[str, ...]]()
        self._near = Counter[tuple[str, ...]]()
        self._users = defaultdict[int, Counter[str]](Counter)
        self._of_unit = Counter[str]()
        for action in actions:
            self.by_agent[action.agent].append(action)
            self._users[action.minor][action.agent] += 1
            for key in self._keys(action):
                self._sums[key] += 1
        self._popular = {minor for minor, users in self._users.items() if len(users) >= _USERS}
        self._priced = defaultdict[tuple[str, ...], Counter[int]](Counter)
        for action in actions:
            if self.near(action):
                for key in self._keys(action):
                    self._near[key] += 1
                    if action.minor in self._popular:
                        self._priced[key][action.minor] += 1

    def _keys(self, action: ObservedAction) -> list[tuple[str, ...]]:
        """Return the groups of an action: all, team and reason; then the same for the agent alone."""
        unit, agent = self._unit[action.agent], action.agent
        return [(), ("unit", unit), (unit, action.reason), ("", "", agent), (unit, action.reason, agent)]

    def near(self, action: ObservedAction) -> bool:
        """Return whether the amount lies just below the limit."""
        assert action.limit is not None
        return self._fraction * action.limit <= action.minor <= action.limit

    def usual_price(self, agent: str, minor: int) -> float:
        """Return the share of one exact amount among the others' actions, in teams that use it; 0 if few people do."""
        if minor not in self._popular:
            return 0.0
        users = self._users[minor]
        mates = sum(self._sums["unit", unit] for unit in {self._unit[user] for user in users})
        return (users.total() - users[agent]) / max(mates - len(self.by_agent[agent]), 1)

    def is_price(self, agent: str, minor: int, alike: float) -> bool:
        """Return whether others use the amount for a share of their actions like the agent's."""
        mine = self._users[minor][agent] / len(self.by_agent[agent])
        return self.usual_price(agent, minor) >= alike * mine

    def usual(self, agent: str, alike: float) -> float:
        """Return the number of the agent's actions that would be near the limit at the others' shares.

        The shares are those of the same team and reason, without the price points that are left out for this agent.
        """
        prices = [minor for minor in self._popular if self._users[minor][agent] and self.is_price(agent, minor, alike)]
        unit = self._unit[agent]
        shares: dict[str, float] = {}
        usual = 0.0
        for action in self.by_agent[agent]:
            if action.reason not in shares:
                share = 0.05
                for key, mine in (
                    ((), ("", "", agent)),
                    (("unit", unit), ("", "", agent)),
                    ((unit, action.reason), (unit, action.reason, agent)),
                ):
                    near = self._near[key] - self._near[mine]
                    near -= sum(self._priced[key][minor] - self._priced[mine][minor] for minor in prices)
                    share = (near + _PRIOR * share) / (self._sums[key] - self._sums[mine] + _PRIOR)
                shares[action.reason] = share
            usual += shares[action.reason]
        return usual


def _alike(history: GuardHistory, start: float, end: float) -> dict[str, list[ObservedAction]]:
    """Return goodwill within a limit, by currency."""
    groups = defaultdict[str, list[ObservedAction]](list)
    for action in history.actions:
        if start <= action.at < end and action.goodwill and action.limit and action.minor <= action.limit:
            groups[action.currency].append(action)
    return groups
