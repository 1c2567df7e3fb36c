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
    there as often as the others' of the same team and reason do. That share is drawn towards the team's and then
    towards that of all. A price point is no sign: an exact amount that three people use, the others at ``alike`` of the
    agent's share or more for the same kind or reason, is left out. Candidates have ``near`` such actions.
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
        self._used = defaultdict[tuple[str, int], Counter[str]](Counter)
        self._works = defaultdict[tuple[str, int], set[str]](set)
        for action in actions:
            self.by_agent[action.agent].append(action)
            self._users[action.minor][action.agent] += 1
            works = (f"kind {action.kind}", f"reason {action.reason}")
            self._works[action.agent, action.minor].update(works)
            for work in works:
                self._used[work, action.minor][action.agent] += 1
            for key in (*self._keys(action), *(("work", one, *who) for one in works for who in ((), (action.agent,)))):
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

    def is_price(self, agent: str, minor: int, alike: float) -> bool:
        """Return whether others use the amount as often as the agent, for the same kind or the same reason."""
        if minor not in self._popular:
            return False
        for work in self._works[agent, minor]:
            users = self._used[work, minor]
            mine, own = users[agent], self._sums["work", work, agent]
            others = self._sums["work", work] - own
            if (users.total() - mine) / max(others, 1) >= alike * mine / own:
                return True
        return False

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
