"""R13, copied note: the same note on far more of one agent's actions than of peers'."""

from __future__ import annotations

from collections import Counter, defaultdict

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import binomial_tail

RULE = Rule("R13", 1, "copied note", {"days": 30, "actions": 8, "p": 0.001})


def over(world: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a binomial tail: so many of the agent's noted actions with one note, at peers' rate.

    Notes are compared only by a keyed hash of their normal form, so the rule still works after a customer is forgotten.
    """
    start = end - parameters["days"] * DAY
    noted = defaultdict[str, list[ObservedAction]](list)
    everywhere = Counter[str]()
    for deed in world.deeds:
        if start <= deed.at < end and deed.note:
            noted[deed.agent].append(deed)
            everywhere[deed.note] += 1
    total, found, tests = sum(everywhere.values()), list[RuleFinding](), 0
    for agent, deeds in noted.items():
        for note, count in Counter(deed.note or "" for deed in deeds).items():
            if count < parameters["actions"]:
                continue
            tests += 1
            peers = total - len(deeds)
            share = (everywhere[note] - count + 1) / (peers + 2)
            p = binomial_tail(count, len(deeds), share)
            if p < parameters["p"]:
                text = (
                    f"{agent} wrote the same note on {count} of {len(deeds)} actions in {parameters['days']} days; "
                    f"peers wrote it on {everywhere[note] - count} of {peers} (chance {p:.1g})"
                )
                evidence = [deed.position for deed in deeds if deed.note == note]
                found.append(RULE.finding((f"agent:{agent}",), note, text, evidence, p))
    return found, tests
