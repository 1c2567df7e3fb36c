"""R10, serial claimant: a customer's group gets goodwill from many agents on far more contacts than agents' rates explain."""

from __future__ import annotations

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardHistory
from domain.statistics import binomial_tail

RULE = Rule("R10", 2, "serial claimant", {"agents": 3, "claims": 6, "days": 30, "times": 2.2, "p": 2e-4})


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a binomial tail: goodwill on this many of the group's contacts.

    Each contact's chance is the rate of peers on that day times the agent's own ratio to peers. Candidates have goodwill
    from many agents, for as many orders or reasons. A regular customer with a problem in the usual share of contacts is
    none.
    """
    start = end - parameters["days"] * DAY
    rates = history.peer_rates(end)
    first, last = int(start // DAY), int(end // DAY) + 1
    found: list[RuleFinding] = []
    tests = 0
    for group, all_actions in history.by_group.items():
        if len(all_actions) < parameters["claims"]:
            continue
        actions = [one for one in all_actions if start <= one.at < end and one.goodwill]
        agents = {one.agent for one in actions}
        told = max(len({one.order or one.interaction for one in actions}), len({one.reason for one in actions}))
        if len(actions) < parameters["claims"] or min(len(agents), told) < parameters["agents"]:
            continue
        tests += 1
        chances = [
            rates.rate(contact.agent, history.unit(contact.agent), int(contact.at // DAY))
            * rates.of(contact.agent, first, last).ratio()
            for contact in history.group_contacts.get(group, ())
            if start <= contact.at < end
        ]
        chances += [
            rates.rate(one.agent, history.unit(one.agent), int(one.at // DAY))
            for one in actions
            if one.interaction is None
        ]
        contacts = max(len(chances), len(actions))
        share = min(max(sum(chances) / max(len(chances), 1), 0.05), 0.9)
        p = binomial_tail(len(actions), contacts, share)
        if p < parameters["p"] and len(actions) >= parameters["times"] * share * contacts:
            currency = actions[-1].currency
            total = sum(one.minor for one in actions if one.currency == currency)
            text = (
                f"{group} was given goodwill {len(actions)} times in {contacts} contacts by {len(agents)} agents in "
                f"{parameters['days']} days, {money(total, currency)}, for {told} orders, matters or reasons; at the "
                f"agents' rates it would be {share * contacts:.1f} (chance {p:.1g})"
            )
            found.append(RULE.finding((f"customer:{group}",), "", text, [one.position for one in actions], p))
    return found, tests
