"""R3, favourite: one agent gives to one customer's group on far more of their contacts than peers' customs explain."""

from __future__ import annotations

from collections import defaultdict
from math import log
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import binomial_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R3", 2, "favourite", {"days": 90, "actions": 6, "times": 1.5, "p": 1e-5})


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by two chances, combined: so much goodwill, and so many contacts of one agent and one customer.

    The first is a binomial tail: goodwill on this many of the pair's contacts, at the rate of peers on those days times
    the agent's own ratio to peers, without this pair. The second is the share of peers' customers that met one of these
    peers as often: an account manager's customers do, others' seldom. Fisher's method combines them: with x their
    product, the chance is x (1 - ln x) (Fisher 1932, for two tests).
    """
    start = end - parameters["days"] * DAY
    candidates = dict(_pairs(history, start, end, parameters["actions"]))
    if not candidates:
        return [], 0
    rates = history.peer_rates(end)
    found: list[RuleFinding] = []
    for (agent, group), actions in candidates.items():
        days = [int(one.at // DAY) for one in history.group_contacts.get(group, ()) if one.agent == agent]
        days += [int(action.at // DAY) for action in actions if action.interaction is None]
        contacts, gifts = max(len(days), len(actions)), len(actions)
        own = rates.of(agent, int(start // DAY), int(end // DAY) + 1)
        unit = history.unit(agent)
        usual = sum(rates.rate(agent, unit, day) for day in days) / max(len(days), 1)
        ratio = own._replace(gifts=own.gifts - gifts, expected=max(own.expected - usual * contacts, 0.0)).ratio()
        share = min(max(usual * ratio, 0.01), 0.9)
        rare = history.regulars.rare(unit, agent, group, contacts)
        x = binomial_tail(gifts, contacts, share) * rare
        p = x * (1 - log(x)) if x > 0 else 0.0
        if p < parameters["p"] and gifts >= parameters["times"] * share * contacts:
            text = (
                f"{agent} gave {group} goodwill {gifts} times in {parameters['days']} days, in {contacts} contacts; at "
                f"peers' rate it would be {share * contacts:.1f}, and {rare:.2%} of peers' customers meet one of them "
                f"as often (chance {p:.1g})"
            )
            about = (f"agent:{agent}", f"customer:{group}")
            found.append(RULE.finding(about, "", text, [action.position for action in actions], p))
    return found, len(candidates)


def _pairs(
    history: GuardHistory, start: float, end: float, least: int
) -> Iterator[tuple[tuple[str, str], list[ObservedAction]]]:
    """Yield each pair of agent and customer's group with so much goodwill, declared relations aside."""
    for group, actions in history.by_group.items():
        if len(actions) < least:
            continue
        of_agent = defaultdict[str, list[ObservedAction]](list)
        for action in actions:
            if start <= action.at < end and action.goodwill:
                of_agent[action.agent].append(action)
        for agent, mine in of_agent.items():
            if len(mine) >= least and mine[0].customer not in history.related.get(agent, {}):
                yield (agent, group), mine
