"""Simulated worlds with a known effect: customers who buy, have problems and are helped, with or without an effect."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from domain.analytics.loyalty.purchases import DAY, Flags, Floats, History, Ints, Moments

CUSTOMERS = 1200
TEAMS = 24
DAYS = 720
FIRST_PROBLEM, LAST_PROBLEM = 270, 500
_START = 1_700_000_000
RAISED_ON = (330, 400, 470)
"""Days on which a third of the teams each had its limit raised, in the staggered world; the last third never."""


class SimulatedWorld(NamedTuple):
    """A ledger's knowledge of a world, and the true effect."""

    buying: History
    problem: Moments
    helped: Flags
    reason: Ints
    team: Ints
    drawn: Flags
    ratio: Floats
    gain: Floats
    """By customer: 1 for one who returns within the window if helped, and would not have returned anyway."""


def world(name: str, seed: int, effect: float, window: int = 90) -> SimulatedWorld:
    """Return a world: `helped at random`, `selection`, `regression`, `trial`, `staggered`, `step` or `bunched`."""
    rng = np.random.default_rng([seed, len(name), 77])
    rate = rng.gamma(2.0, 1 / 120, CUSTOMERS)  # purchases a day; one in sixty days
    problem_day = rng.uniform(FIRST_PROBLEM, LAST_PROBLEM, CUSTOMERS)
    reason, team = rng.integers(0, 2, CUSTOMERS), rng.integers(0, TEAMS, CUSTOMERS)
    lot = rng.permutation(TEAMS)
    drawn = lot < TEAMS // 2
    ratio = rng.uniform(0.4, 1.6, CUSTOMERS)
    days, customers = _purchases(rng, rate)
    if name == "regression":  # problems follow unusually frequent purchases
        problem_day, chance = _after_a_burst(rng, days, customers, problem_day)
        helped = rng.random(CUSTOMERS) < chance
    elif name == "selection":  # frequent buyers are helped more often
        helped = rng.random(CUSTOMERS) < 1 / (1 + np.exp(-(rate - rate.mean()) / rate.std() * 1.5))
    elif name == "trial":
        helped = drawn[team]
    elif name == "staggered":
        raised = np.array([*RAISED_ON, DAYS + 1])[lot % 4]
        helped = problem_day > raised[team]
    elif name in {"step", "bunched"}:
        if name == "bunched":
            near = (
                (ratio > 1) & (ratio < 1.15) & (rng.random(CUSTOMERS) < 0.7)
            )  # amounts are lowered to stay below the limit
            ratio = np.where(near, 0.99, ratio)
        helped = ratio <= 1
    else:  # help depends on the reason alone
        helped = rng.random(CUSTOMERS) < np.where(reason == 0, 0.7, 0.3)
    came_anyway = _came(days, customers, problem_day, window)
    moved = rng.random(CUSTOMERS) < effect  # bought once more, if helped
    more_days = problem_day + rng.uniform(1, window - 1, CUSTOMERS)
    there = helped & moved
    days, customers = np.concatenate((days, more_days[there])), np.concatenate((customers, np.flatnonzero(there)))
    at = (_START + days * DAY).astype(np.int64)
    buying = History(customers, at, np.full(customers.size, 2_000) + rng.integers(-500, 500, customers.size))
    buying.first, buying.last = _START, _START + DAYS * DAY
    problem = Moments(np.arange(CUSTOMERS), (_START + problem_day * DAY).astype(np.int64))
    return SimulatedWorld(buying, problem, helped, reason, team, drawn, ratio, (moved & ~came_anyway).astype(float))


def day_at(day: float) -> int:
    """Return the time of a day."""
    return int(_START + day * DAY)


def _purchases(rng: np.random.Generator, rate: Floats) -> tuple[Floats, Ints]:
    number = rng.poisson(rate * DAYS)
    return rng.uniform(0, DAYS, number.sum()), np.repeat(np.arange(rate.size), number)


def _came(days: Floats, customers: Ints, problem_day: Floats, window: int) -> Flags:
    inside = (days >= problem_day[customers]) & (days <= problem_day[customers] + window)
    has_returned: Flags = np.bincount(customers[inside], minlength=problem_day.size) > 0
    return has_returned


def _after_a_burst(
    rng: np.random.Generator, days: Floats, customers: Ints, problem_day: Floats
) -> tuple[Floats, Floats]:
    """Return days after at least two purchases in thirty days, if there are any; help is more frequent then."""
    found, chance = problem_day.copy(), np.full(problem_day.size, 0.1)
    for customer in range(problem_day.size):
        own_days = np.sort(days[customers == customer])
        tries = rng.uniform(FIRST_PROBLEM, LAST_PROBLEM, 12)
        recent = np.searchsorted(own_days, tries) - np.searchsorted(own_days, tries - 30)
        best = int(recent.argmax())
        if recent[best] > 1:
            found[customer], chance[customer] = tries[best], 0.9
    return found, chance
