"""R13, copied note: the same note on far more of one agent's actions than of peers'."""

from __future__ import annotations

from collections import Counter, defaultdict

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import binomial_tail

RULE = Rule("R13", 1, "copied note", {"days": 30, "actions": 8, "p": 0.001})


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings by a binomial tail: so many of the agent's noted actions with one note, at peers' rate.

    Notes are compared only by a keyed hash of their normal form, so the rule still works after a customer is forgotten.
    """
    start = end - parameters["days"] * DAY
    noted = defaultdict[str, list[ObservedAction]](list)
    everywhere = Counter[str]()
    for action in history.actions:
        if start <= action.at < end and action.note:
            noted[action.agent].append(action)
            everywhere[action.note] += 1
    total, found, tests = sum(everywhere.values()), list[RuleFinding](), 0
    for agent, actions in noted.items():
        for note, count in Counter(action.note or "" for action in actions).items():
            if count < parameters["actions"]:
                continue
            tests += 1
            peers = total - len(actions)
            share = (everywhere[note] - count + 1) / (peers + 2)
            p = binomial_tail(count, len(actions), share)
            if p < parameters["p"]:
                text = (
                    f"{agent} wrote the same note on {count} of {len(actions)} actions in {parameters['days']} days; "
                    f"peers wrote it on {everywhere[note] - count} of {peers} (chance {p:.1g})"
                )
                evidence = [action.position for action in actions if action.note == note]
                found.append(RULE.finding((f"agent:{agent}",), note, text, evidence, p))
    return found, tests
