"""R9, outlier among peers: goodwill a contact far from what peers give. Shown beside outcomes: it may be right."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, median
from typing import Any

from domain.abuse.findings import Finding, Rule, money
from domain.abuse.seen import DAY, World

RULE = Rule(
    "R9", 1, "outlier among peers", {"days": 30, "peers": 8, "contacts": 20, "z": 3.5, "times": 1.5, "sigma": 3.0}
)


def modified_z(value: float, others: list[float]) -> float:
    """The modified z-score 0.6745 (x - median) / MAD (Iglewicz and Hoaglin 1993); by mean deviation where MAD is 0."""
    middle = median(others)
    spread = median(abs(other - middle) for other in others)
    if spread:
        return 0.6745 * (value - middle) / spread
    mean_deviation = fmean(abs(other - middle) for other in others)
    return (value - middle) / (1.253314 * mean_deviation) if mean_deviation else 0.0


def over(world: World, end: float, parameters: dict[str, Any]) -> tuple[list[Finding], int]:
    """Agents of one role and currency; of one team, where the team alone has enough: a generous team is no outlier."""
    start = end - parameters["days"] * DAY
    spent = defaultdict[tuple[str, str], dict[str, int]](lambda: defaultdict(int))
    squares = defaultdict[tuple[str, str], int](int)
    evidence = defaultdict[str, list[int]](list)
    for deed in world.deeds:
        if start <= deed.at < end and deed.goodwill:
            spent[deed.role, deed.currency][deed.agent] += deed.minor
            squares[deed.agent, deed.currency] += deed.minor**2
            evidence[deed.agent].append(deed.position)
    found: list[Finding] = []
    for (role, currency), by_agent in spent.items():
        each = {
            agent: (by_agent.get(agent, 0) / contacts, contacts)
            for agent in world.contacts
            if world.role(agent) == role
            and (contacts := world.contacts_between(agent, start, end)) >= parameters["contacts"]
        }
        for agent, (value, contacts) in each.items():
            peers = _peers(world, agent, list(each), parameters["peers"])
            if len(peers) < parameters["peers"]:
                continue
            z = modified_z(value, [each[peer][0] for peer in peers])
            usual = median(each[peer][0] for peer in peers)
            # Its own chance, too: few contacts with a few large gifts make a large mean.
            error = (max(squares[agent, currency] / contacts - value**2, 0.0) / contacts) ** 0.5
            far = value >= parameters["times"] * usual and value - parameters["sigma"] * error > usual
            if z > parameters["z"] and far:
                text = (
                    f"{agent} gave {money(round(value), currency)} a contact in {parameters['days']} days ({contacts} "
                    f"contacts), where {len(peers)} peers give {money(round(usual), currency)} (modified z {z:.1f})"
                )
                found.append(RULE.finding((f"agent:{agent}",), currency, text, evidence[agent]))
    return found, 0


def _peers(world: World, agent: str, agents: list[str], enough: int) -> list[str]:
    others = [other for other in agents if other != agent]
    mine = set(world.teams.get(agent, ()))
    team = [other for other in others if mine.intersection(world.teams.get(other, ()))]
    return team if len(team) >= enough else others
