"""R8, burst: far more goodwill in an hour or a day than the agent's own weeks explain, at as many contacts."""

from __future__ import annotations

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, HOUR, GuardHistory
from domain.statistics import negative_binomial_tail

RULE = Rule("R8", 2, "burst", {"days": 28, "actions": 5, "p": 1e-4})


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a Poisson tail against the 28 days before, scaled by contacts.

    Scaling keeps a busy day from counting as a burst. The agent's rate is estimated from as many contacts as there
    were. So the tail is that of a Poisson with a gamma rate, the negative binomial (Gelman et al., Bayesian Data
    Analysis, 2.6). It is wider for an agent with a short history.
    """
    found: list[RuleFinding] = []
    tests = 0
    for agent in list(history.by_agent):
        last_day = history.actions_of(agent, end - DAY, end)
        if not last_day:
            continue
        start = end - (parameters["days"] + 1) * DAY
        before = len(history.actions_of(agent, start, end - DAY))
        contacts_before = history.contacts_between(agent, start, end - DAY)
        if contacts_before == 0:
            continue
        exposure = contacts_before + 1
        rate = (before + 1) / exposure
        windows = [(end - DAY, DAY, "day"), *((end - DAY + hour * HOUR, HOUR, "hour") for hour in range(24))]
        for begin, length, word in windows:
            actions = [action for action in last_day if begin <= action.at < begin + length]
            if not actions:
                continue
            tests += 1
            if len(actions) < parameters["actions"]:
                continue
            contacts = max(history.contacts_between(agent, begin, begin + length), 1)
            p = negative_binomial_tail(len(actions), before + 1, exposure / (exposure + contacts))
            if p < parameters["p"]:
                text = (
                    f"{agent} gave goodwill {len(actions)} times in one {word}, in {contacts} contacts; at the agent's "
                    f"own {rate:.2f} a contact it would be {rate * contacts:.1f} (chance {p:.1g})"
                )
                key = f"{word} {int(begin)}"
                found.append(RULE.finding((f"agent:{agent}",), key, text, [action.position for action in actions], p))
                break  # one finding a day is enough: the day's, or that of the first hour
    return found, tests
