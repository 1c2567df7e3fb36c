"""R8, burst: far more goodwill on a day than peers' same day and the agent's own weeks explain, at as many contacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory
from domain.statistics import negative_binomial_tail

if TYPE_CHECKING:
    from domain.abuse.peers import PeerRates

RULE = Rule("R8", 3, "burst", {"days": 28, "actions": 10, "times": 2.2, "p": 1e-3})
_STEADY = 30.0
"""The most gifts that an agent's own ratio is taken to be known from: days differ by a fifth without any misuse."""


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings on the last two whole days; the second look is for facts that came late.

    The expectation of the day is that of peers on the same day for as many contacts (``domain.abuse.peers``), times the
    agent's own ratio to peers in the days before. The ratio is known from so many gifts as there were, at most thirty.
    So the count has a Poisson distribution with a gamma rate: the negative binomial (Gelman et al., Bayesian Data
    Analysis, 2.6). Candidates are agents with ``actions`` gifts on the day; only they are tested.
    """
    found: list[RuleFinding] = []
    tests = 0
    rates, last = history.peer_rates(end), int(end // DAY) - 1
    for agent in history.active_agents():
        for day in (last - 1, last):
            if history.work.gifts(agent, day) < parameters["actions"]:
                continue
            tests += 1
            today = rates.of(agent, day, day + 1)
            p, usual = _chance(rates, agent, day, parameters["days"])
            if p < parameters["p"] and today.gifts >= parameters["times"] * usual:
                actions = history.actions_of(agent, day * DAY, (day + 1) * DAY)
                text = (
                    f"{agent} gave goodwill {today.gifts} times in one day, in {today.contacts:.0f} contacts; at "
                    f"peers' rate of that day and the agent's own weeks it would be {usual:.1f} (chance {p:.1g})"
                )
                evidence = [action.position for action in actions if action.goodwill]
                found.append(RULE.finding((f"agent:{agent}",), f"day {day}", text, evidence, p))
    return found, tests


def _chance(rates: PeerRates, agent: str, day: int, days: int) -> tuple[float, float]:
    """Return the chance of as much goodwill on a day, and the expected number."""
    today, before = rates.of(agent, day, day + 1), rates.of(agent, day - days, day)
    usual = max(today.expected, 0.2) * before.ratio()
    known = min(before.gifts + 4.0, _STEADY)
    return negative_binomial_tail(today.gifts, known, known / (known + usual)), usual
