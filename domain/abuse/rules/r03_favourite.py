"""R3, favourite: one agent gives to one customer's group far more often than their contacts explain."""

from __future__ import annotations

from collections import defaultdict

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import poisson_tail

RULE = Rule("R3", 1, "favourite", {"days": 90, "actions": 3, "p": 0.001})


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a Poisson tail: the chance of so many actions for the pair at the rate of all others."""
    start = end - parameters["days"] * DAY
    pairs = defaultdict[tuple[str, str], list[ObservedAction]](list)
    total = 0
    for action in history.actions:
        if start <= action.at < end and action.goodwill:
            total += 1
            if action.group is not None:
                pairs[action.agent, action.group].append(action)
    contacts = sum(len(times) for times in history.contacts.values())
    found: list[RuleFinding] = []
    for (agent, group), actions in pairs.items():
        if actions[0].customer in history.related.get(agent, {}):
            continue  # declared relations are left to R4
        between = max(history.between(agent, group), 1)
        if len(actions) < parameters["actions"]:
            continue
        # The rate leaves this pair out, because otherwise the pair would explain itself.
        rate = (total - len(actions) + 1) / max(contacts - between + 1, 1)
        p = poisson_tail(len(actions), rate * between)
        if p < parameters["p"]:
            text = (
                f"{agent} gave {group} goodwill {len(actions)} times in {parameters['days']} days, in {between} "
                f"contacts; at the usual {rate:.2f} a contact it would be {rate * between:.1f} (chance {p:.1g})"
            )
            about = (f"agent:{agent}", f"customer:{group}")
            found.append(RULE.finding(about, "", text, [action.position for action in actions], p))
    return found, len(pairs)
