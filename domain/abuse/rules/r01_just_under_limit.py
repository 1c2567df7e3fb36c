"""R1, just under the limit: an agent's amounts crowd just below the limit for one action, as peers' amounts do not."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.abuse.settled import VARIATION
from domain.statistics import varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule(
    "R1",
    3,
    "just under the limit",
    {"days": 30, "actions": 10, "near": 7, "fraction": 0.9, "times": 2.5, "p": 3e-4, "alike": 0.34},
)
_SAME = 3
"""An exact amount that others use as well counts at most so often."""
_USERS = 3
"""An amount that so many people use is a price point."""
_PRIOR = 20.0
"""The weight of all peers beside those of the same team and reason, in actions."""
_UNKNOWN = 0.05
"""The share near the limit before anything is known."""


class _Count:
    """Actions, and those of them near the limit."""

    __slots__ = ("all", "near")

    def __init__(self) -> None:
        self.all = self.near = 0

    def add(self, other: _Count) -> None:
        self.all += other.all
        self.near += other.near


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings over the window that ends at ``end``, and the number of candidates.

    Beta-binomial tail: the chance of so many of the agent's actions in [fraction L, L], where L is the limit, if each
    fell there as often as the others' of the same team and reason do. That share is drawn towards the team's and then
    towards that of all. A price point is no sign: an exact amount that three people use, the others at ``alike`` of the
    agent's share or more for the same kind or reason, is left out. Any other amount that somebody else uses too counts
    three times at most: it may be the limit itself, given for larger matters. Candidates have ``near`` such actions.
    """
    start = end - parameters["days"] * DAY
    found: list[RuleFinding] = []
    tests = 0
    for currency, actions in _alike(history, start, end).items():
        crowd = _Crowd(history, actions, parameters)
        for agent, own, near in crowd.candidates():
            tests += 1
            usual = crowd.usual(agent)
            p = varied_tail(len(near), own, min(usual / own, 0.95), VARIATION)
            if p < parameters["p"] and len(near) >= parameters["times"] * usual:
                limit = near[-1].limit or 0
                text = (
                    f"{len(near)} of {own} amounts by {agent} in {parameters['days']} days are between "
                    f"{parameters['fraction']:.0%} of the limit of {money(limit, currency)} and the limit itself, "
                    f"price points aside; for the same work of peers it would be {usual:.1f} (chance {p:.1g})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, [action.position for action in near], p))
    return found, tests


class _Crowd:
    """The actions of one currency: how often amounts fall near the limit, and how usual each amount is.

    Candidates come first: exact amounts are counted for those alone that have enough actions near the limit.
    """

    def __init__(self, history: GuardHistory, actions: list[ObservedAction], parameters: Parameters) -> None:
        self._alike, self._least = parameters["alike"], parameters["near"]
        cells = defaultdict[tuple[str, str, str], _Count](_Count)
        self._of_agent = defaultdict[str, _Count](_Count)
        near = defaultdict[str, list[ObservedAction]](list)
        fraction = parameters["fraction"]
        for action in actions:
            agent = action.agent
            cell = cells[agent, action.kind, action.reason]
            cell.all += 1
            if action.minor >= fraction * (action.limit or 0):
                cell.near += 1
                near[agent].append(action)
        for (agent, _, _), cell in cells.items():
            self._of_agent[agent].add(cell)
        self._near = {
            agent: some
            for agent, some in near.items()
            if len(some) >= self._least and self._of_agent[agent].all >= parameters["actions"]
        }
        if self._near:
            self._unit = {agent: history.unit(agent) for agent in self._of_agent}
            self._count_groups(cells)
            self._count_amounts(actions, near)

    def _count_groups(self, cells: dict[tuple[str, str, str], _Count]) -> None:
        self._all = _Count()
        self._of_unit = defaultdict[str, _Count](_Count)
        self._of_reason = defaultdict[tuple[str, str], _Count](_Count)
        """By unit and reason."""
        self._own_reason = defaultdict[tuple[str, str], _Count](_Count)
        """By agent and reason."""
        self._of_work = Counter[str]()
        self._own_work = Counter[tuple[str, str]]()
        for (agent, kind, reason), cell in cells.items():
            unit = self._unit[agent]
            self._all.add(cell)
            self._of_unit[unit].add(cell)
            self._of_reason[unit, reason].add(cell)
            self._own_reason[agent, reason].add(cell)
            for work in _works(kind, reason):
                self._of_work[work] += cell.all
                self._own_work[agent, work] += cell.all

    def _count_amounts(self, actions: list[ObservedAction], near: dict[str, list[ObservedAction]]) -> None:
        """Count the users of each amount that a candidate gave near the limit."""
        concerned = {action.minor for some in self._near.values() for action in some}
        self._users = defaultdict[int, set[str]](set)
        self._used = defaultdict[tuple[str, int], Counter[str]](Counter)
        self._works = defaultdict[tuple[str, int], set[str]](set)
        for action in actions:
            if action.minor in concerned:
                self._users[action.minor].add(action.agent)
                works = _works(action.kind, action.reason)
                self._works[action.agent, action.minor].update(works)
                for work in works:
                    self._used[work, action.minor][action.agent] += 1
        popular = {minor for minor, users in self._users.items() if len(users) >= _USERS}
        self._prices = {
            agent: {minor for minor in {one.minor for one in some} & popular if self._is_price(agent, minor)}
            for agent, some in self._near.items()
        }
        self._priced = Counter[tuple[int, str, str]]()
        """Actions near the limit by amount, agent and reason, for amounts that are prices for some candidate."""
        prices = set[int]().union(*self._prices.values())
        for some in near.values():
            self._priced.update((one.minor, one.agent, one.reason) for one in some if one.minor in prices)

    def _is_price(self, agent: str, minor: int) -> bool:
        """Return whether others use the amount as often as the agent, for the same kind or the same reason."""
        for work in self._works[agent, minor]:
            users = self._used[work, minor]
            mine, own = users[agent], self._own_work[agent, work]
            others = self._of_work[work] - own
            if (users.total() - mine) / max(others, 1) >= self._alike * mine / own:
                return True
        return False

    def candidates(self) -> Iterator[tuple[str, int, list[ObservedAction]]]:
        """Yield each agent with enough actions near the limit besides prices, the number of actions, and those near.

        A surge or a fee may be a price before peers have shown it, so an amount that others use counts ``_SAME`` times.
        """
        for agent, some in self._near.items():
            used, near = Counter[int](), list[ObservedAction]()
            for one in some:
                used[one.minor] += 1
                own = used[one.minor] <= _SAME or len(self._users[one.minor]) == 1
                if own and one.minor not in self._prices[agent]:
                    near.append(one)
            if len(near) >= self._least:
                yield agent, self._of_agent[agent].all, near

    def usual(self, agent: str) -> float:
        """Return the number of the agent's actions that would be near the limit at the others' shares.

        The shares are those of the same team and reason, without the price points that are left out for this agent.
        """
        unit, prices = self._unit[agent], self._prices[agent]
        priced = [
            (self._unit[who], reason, number)
            for (minor, who, reason), number in self._priced.items()
            if minor in prices and who != agent
        ]
        usual = 0.0
        for (who, reason), own in self._own_reason.items():
            if who != agent:
                continue
            share = _UNKNOWN
            for group, mine, left_out in (
                (self._all, self._of_agent[agent], sum(number for _, _, number in priced)),
                (self._of_unit[unit], self._of_agent[agent], sum(number for at, _, number in priced if at == unit)),
                (
                    self._of_reason[unit, reason],
                    own,
                    sum(number for *at, number in priced if at == [unit, reason]),
                ),
            ):
                near = group.near - mine.near - left_out
                share = (near + _PRIOR * share) / (group.all - mine.all + _PRIOR)
            usual += share * own.all
        return usual


def _works(kind: str, reason: str) -> tuple[str, str]:
    return f"kind {kind}", f"reason {reason}"


def _alike(history: GuardHistory, start: float, end: float) -> dict[str, list[ObservedAction]]:
    """Return goodwill within a limit, by currency."""
    groups = defaultdict[str, list[ObservedAction]](list)
    for action in history.actions:
        if start <= action.at < end and action.goodwill and action.limit and action.minor <= action.limit:
            groups[action.currency].append(action)
    return groups
