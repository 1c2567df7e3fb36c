"""R8, burst: far more goodwill in an hour or a day than the agent's own weeks explain, at as many contacts."""

from __future__ import annotations

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, HOUR, GuardHistory
from domain.statistics import negative_binomial_tail

RULE = Rule("R8", 2, "burst", {"days": 28, "actions": 5, "p": 1e-4})


def over(world: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a Poisson tail against the 28 days before, scaled by contacts.

    Scaling keeps a busy day from counting as a burst. The agent's rate is estimated from as many contacts as there
    were. So the tail is that of a Poisson with a gamma rate, the negative binomial (Gelman et al., Bayesian Data
    Analysis, 2.6). It is wider for an agent with a short history.
    """
    found: list[RuleFinding] = []
    tests = 0
    for agent in list(world.by_agent):
        last_day = world.deeds_of(agent, end - DAY, end)
        if not last_day:
            continue
        start = end - (parameters["days"] + 1) * DAY
        before = len(world.deeds_of(agent, start, end - DAY))
        contacts_before = world.contacts_between(agent, start, end - DAY)
        if contacts_before == 0:
            continue
        seen = contacts_before + 1
        rate = (before + 1) / seen
        windows = [(end - DAY, DAY, "day"), *((end - DAY + hour * HOUR, HOUR, "hour") for hour in range(24))]
        for begin, length, word in windows:
            deeds = [deed for deed in last_day if begin <= deed.at < begin + length]
            if not deeds:
                continue
            tests += 1
            if len(deeds) < parameters["actions"]:
                continue
            contacts = max(world.contacts_between(agent, begin, begin + length), 1)
            p = negative_binomial_tail(len(deeds), before + 1, seen / (seen + contacts))
            if p < parameters["p"]:
                text = (
                    f"{agent} gave goodwill {len(deeds)} times in one {word}, in {contacts} contacts; at the agent's "
                    f"own {rate:.2f} a contact it would be {rate * contacts:.1f} (chance {p:.1g})"
                )
                key = f"{word} {int(begin)}"
                found.append(RULE.finding((f"agent:{agent}",), key, text, [deed.position for deed in deeds], p))
                break  # one finding a day is enough: the day's, or that of the first hour
    return found, tests
