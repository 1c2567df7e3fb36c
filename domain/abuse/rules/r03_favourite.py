"""R3, favourite: one agent gives to one customer's group on far more of their contacts than peers' customs explain."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, FREQUENT, GuardHistory, ObservedAction
from domain.statistics import fisher_both, varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.peers import PeerRates

RULE = Rule("R3", 2, "favourite", {"days": 90, "actions": 6, "times": 1.5, "p": 1e-3})


_VARIATION = 0.25
"""The coefficient of variation of customers' shares of contacts that bring goodwill."""
_PRIOR = 4.0
_RARE = 0.01
"""The least share: a rare bond alone is no misuse."""


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by two chances, combined: so much goodwill, and a customer that meets this agent alone.

    The first is a beta-binomial tail: goodwill on this many of the pair's contacts, at the rate of peers on those days
    times the agent's own ratio to peers without this pair, and times the customer's ratio with other agents: a customer
    that all give to is no favourite. The second is the share of the team's other agents that have as large a part of
    some regular customer's contacts: account managers have, others seldom. Fisher's method
    combines them: with x their product, the chance is x (1 - ln x) (Fisher 1932, for two tests).
    """
    start = end - parameters["days"] * DAY
    candidates = dict(_pairs(history, start, end, parameters["actions"]))
    if not candidates:
        return [], 0
    rates = history.peer_rates(end)
    bonds: _Bonds | None = None
    found: list[RuleFinding] = []
    for (agent, group), actions in candidates.items():
        days = [int(one.at // DAY) for one in history.contacts_of(group) if one.agent == agent]
        days += [int(action.at // DAY) for action in actions if action.interaction is None]
        contacts, gifts = max(len(days), len(actions)), len(actions)
        own = rates.of(agent, int(start // DAY), int(end // DAY) + 1)
        unit = history.unit(agent)
        usual = sum(rates.rate(agent, unit, day) for day in days) / max(len(days), 1)
        ratio = own._replace(gifts=own.gifts - gifts, expected=max(own.expected - usual * contacts, 0.0)).ratio()
        share = min(max(usual * ratio * _with_others(history, rates, agent, group), 0.01), 0.9)
        so_much = varied_tail(gifts, contacts, share, _VARIATION)
        if gifts < parameters["times"] * share * contacts or fisher_both(so_much, _RARE) >= parameters["p"]:
            continue
        bonds = bonds or _Bonds(history, parameters["actions"])
        rare = bonds.rare(unit, agent, group)
        p = fisher_both(so_much, rare)
        if p < parameters["p"]:
            text = (
                f"{agent} gave {group} goodwill {gifts} times in {parameters['days']} days, in {contacts} contacts; at "
                f"peers' rate it would be {share * contacts:.1f}, and {rare:.0%} of peers have a regular customer "
                f"as exclusively (chance {p:.1g})"
            )
            about = (f"agent:{agent}", f"customer:{group}")
            found.append(RULE.finding(about, "", text, [action.position for action in actions], p))
    return found, len(candidates)


def _with_others(history: GuardHistory, rates: PeerRates, agent: str, group: str) -> float:
    """Return the customer's goodwill with other agents relative to theirs elsewhere, drawn towards 1."""
    met = [one for one in history.contacts_of(group) if one.agent != agent]
    expected = sum(rates.rate(one.agent, one.unit, int(one.at // DAY)) * rates.whole(one.agent).ratio() for one in met)
    given = sum(one.agent != agent and one.goodwill for one in history.given_to(group))
    return (given + _PRIOR) / (expected + _PRIOR)


class _Bonds:
    """Each agent's customers with enough contacts, by the part of those that the agent has."""

    def __init__(self, history: GuardHistory, least: int) -> None:
        self._most: dict[str, float] = dict.fromkeys(history.active_agents(), 0.0)
        self._of: dict[tuple[str, str], float] = {}
        for group in sorted(history.regulars):
            contacts = history.contacts_of(group)
            if len(contacts) >= least:
                for agent, number in Counter(one.agent for one in contacts).items():
                    part = self._of[agent, group] = number / len(contacts)
                    self._most[agent] = max(self._most.get(agent, 0.0), part)
        self._unit = {agent: history.unit(agent) for agent in self._most}

    def rare(self, unit: str, agent: str, group: str) -> float:
        """Return the share of the unit's other agents that have as large a part of a customer's contacts.

        It is drawn towards the share of all agents.
        """
        mine = self._of.get((agent, group), 1.0)
        others = [(most >= mine, self._unit[other] == unit) for other, most in self._most.items() if other != agent]
        everywhere = (sum(hit for hit, _ in others) + 1) / (len(others) + 1)
        mates = [hit for hit, mate in others if mate]
        return max((sum(mates) + _PRIOR * everywhere) / (len(mates) + _PRIOR), _RARE)


def _pairs(
    history: GuardHistory, start: float, end: float, least: int
) -> Iterator[tuple[tuple[str, str], list[ObservedAction]]]:
    """Yield each pair of agent and customer's group with so much goodwill, declared relations aside."""
    assert least >= FREQUENT, "the history lists groups with so many actions"
    for group in sorted(history.frequent):
        actions = history.given_to(group)
        if len(actions) < least:
            continue
        of_agent = defaultdict[str, list[ObservedAction]](list)
        for action in actions:
            if start <= action.at < end and action.goodwill:
                of_agent[action.agent].append(action)
        for agent, mine in of_agent.items():
            if len(mine) >= least and mine[0].customer not in history.related.get(agent, {}):
                yield (agent, group), mine
