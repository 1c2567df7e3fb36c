"""R1, just under the limit: an agent's amounts crowd just below the limit for one action, as peers' amounts do not."""

from __future__ import annotations

from collections import Counter, defaultdict

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import binomial_tail

RULE = Rule(
    "R1", 1, "just under the limit", {"days": 30, "actions": 10, "near": 5, "fraction": 0.9, "p": 0.001, "alike": 0.5}
)


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings over the window that ends at ``end``, and the number of tests made.

    Binomial tail: the chance of so many of the agent's actions in [fraction L, L], where L is the limit, if each fell
    there as often as peers' do (add-one smoothing). An exact amount that peers use at least half as often, such as a
    fee, does not count.
    """
    start = end - parameters["days"] * DAY
    found: list[RuleFinding] = []
    tests = 0
    for (_, kind, currency), actions in _alike(history, start, end).items():
        agents = defaultdict[str, list[ObservedAction]](list)
        for action in actions:
            agents[action.agent].append(action)
        amounts = Counter(action.minor for action in actions)
        near_all = sum(_near(action, parameters) for action in actions)
        for agent, own in agents.items():
            if len(own) < parameters["actions"]:
                continue
            mine, peers = Counter(action.minor for action in own), len(actions) - len(own)
            counted = [
                action
                for action in own
                if peers == 0
                or (amounts[action.minor] - mine[action.minor]) / peers
                < parameters["alike"] * mine[action.minor] / len(own)
            ]
            near = [action for action in counted if _near(action, parameters)]
            tests += 1
            if len(near) < parameters["near"]:
                continue
            peers_near = near_all - sum(_near(action, parameters) for action in own)
            share = (peers_near + 1) / (peers + 2)
            p = binomial_tail(len(near), len(own), share)
            if p < parameters["p"]:
                limit = near[-1].limit or 0
                text = (
                    f"{len(near)} of {len(own)} {kind}s by {agent} in {parameters['days']} days are between "
                    f"{parameters['fraction']:.0%} of the limit of {money(limit, currency)} and the limit itself; of "
                    f"peers' {peers} it is {peers_near} (chance {p:.1g})"
                )
                key = f"{kind} {currency}"
                found.append(RULE.finding((f"agent:{agent}",), key, text, [action.position for action in near], p))
    return found, tests


def _alike(history: GuardHistory, start: float, end: float) -> dict[tuple[str, str, str], list[ObservedAction]]:
    """Return goodwill within a limit, by role, kind and currency."""
    groups = defaultdict[tuple[str, str, str], list[ObservedAction]](list)
    for action in history.actions:
        if start <= action.at < end and action.goodwill and action.limit and action.minor <= action.limit:
            groups[action.role, action.kind, action.currency].append(action)
    return groups


def _near(action: ObservedAction, parameters: Parameters) -> bool:
    assert action.limit is not None
    return bool(parameters["fraction"] * action.limit <= action.minor <= action.limit)
