"""Organisations drawn from a seed: teams, people, customers, calendars, and the customs of each.

No two organisations are alike. Each has customs that look like misuse: price points just below a limit, macros, weeks
in which everybody gives, generous teams, customers with a preferred agent, sources that record no purchases or shifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from domain.events.facts import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence


QUARTER_DAYS = 91
_SITES = (("GBP", 1.0, 0), ("EUR", 1.2, 1), ("USD", 1.3, -6), ("PLN", 5.0, 1))
"""Currency, price level, and offset from UTC in hours."""
_REASONS = ("late", "damaged", "missing", "wrong item", "billing", "rude", "waited", "quality", "fee")
_DESKS = ("general", "general", "general", "specialist", "vip", "doorstep", "back office", "store")
_CHANNELS = {"general": ("phone", "chat", "e-mail"), "specialist": ("phone", "e-mail"), "vip": ("phone",)}


class Custom(NamedTuple):
    """The custom of one reason in one team: chance of a gift, usual amount and prices as shares of an agent's L."""

    chance: float
    middle: float
    spread: float
    points: tuple[float, ...]
    points_share: float


class Habits(NamedTuple):
    """An organisation's honest habits that look like misuse, as shares unless said otherwise."""

    slips: float
    """Of gifts: taken back within minutes and given again."""
    second_thoughts: float
    """Of gifts: taken back hours later."""
    second_things: float
    """Of gifts: a second gift on the same matter."""
    settles_for_limit: float
    """Of amounts that need authority: the agent gives the limit instead."""
    loose: float
    """Of gifts: not given in a recorded contact."""
    offline: float
    beyond: float
    """Of doorstep gifts: reported beyond the limit."""
    overdrawn: float
    """Of doorstep gifts: beyond the budget."""
    races: float
    """Of gifts: past a soft limit."""
    relatives: float
    """Attempts at a relative's matter, for each person and quarter."""
    lost_shifts: float
    overtime: float
    owed: float
    """Of gifts: entitlements and corrections."""
    unproven: float
    """Of those: no payment shows them."""
    paid: float
    """The usual payment for an order, in limits."""
    thanks: float
    """Thanks for each person and day."""
    to_friend: float
    pastes: float
    no_note: float
    moods: float
    """The standard deviation of the logarithm of a person's generosity from month to month."""
    claims: float
    """The same of customers' chance of goodwill."""
    denied: float
    delegations: float
    """Delegations to a colleague, for each manager and month."""
    relinks: float
    """Household links that are cut again, of all."""


def draw_habits(random: Random) -> Habits:
    """Return habits drawn widely: no two organisations are alike."""

    def about(middle: float, factor: float = 3.0) -> float:
        return middle * math.exp(random.uniform(-math.log(factor), math.log(factor)))

    return Habits(
        slips=about(0.006),
        second_thoughts=about(0.002),
        second_things=about(0.02),
        settles_for_limit=random.uniform(0.1, 0.5),
        loose=about(0.01, 5.0),
        offline=about(0.01),
        beyond=about(0.003),
        overdrawn=about(0.001),
        races=about(0.0005, 4.0),
        relatives=about(0.005),
        lost_shifts=about(0.006),
        overtime=about(0.06, 2.5),
        owed=random.choice((0.0, 0.05, 0.2, 0.4)),
        unproven=about(0.03, 4.0),
        paid=random.uniform(0.9, 1.8),
        thanks=about(0.08),
        to_friend=random.uniform(0.1, 0.5),
        pastes=random.uniform(0.0, 1.5),
        no_note=random.uniform(0.0, 0.5),
        moods=random.uniform(0.0, 0.2),
        claims=random.uniform(0.0, 0.35),
        denied=random.uniform(0.05, 0.3),
        delegations=about(0.2),
        relinks=about(0.03),
    )


@dataclass(eq=False)
class PlannedTeam:
    """A team with one desk, channel, site and source."""

    team_id: str
    desk: str
    channel: str
    currency: str
    level: float
    offset_hours: int
    source: str
    rota: str
    """``day``, ``early and late`` or ``around the clock``."""
    weekends: bool
    records_purchases: bool
    purchase_delay_hours: float
    shifts: str
    """``clock`` (actual times), ``roster`` (planned times, overtime is not in it), or ``none``."""
    shift_delay_hours: float
    generosity: float
    reasons: tuple[tuple[str, float], ...]
    customs: dict[str, Custom]
    macros: dict[str, str]
    kinds: dict[str, tuple[Kind, ...]] = field(default_factory=dict)
    """The kinds of action that the team gives for a reason, where they differ from those of most teams."""
    members: list[Person] = field(default_factory=list)


@dataclass(eq=False)
class Person:
    """A person, or a program that answers customers (``kind`` = ai)."""

    employee_id: str
    team: PlannedTeam
    role: str
    kind: str
    joined_day: int
    """Below zero for those that joined before the first day."""
    left_day: int | None
    days_a_week: int
    hours: float
    pace: float
    """Contacts in a full shift."""
    generosity: float
    pastes: float
    """The share of notes that are the team's macro."""
    phrase: float
    """The share of notes that are the person's own standing phrase."""
    friend: Person | None = None

    def here(self, day: int) -> bool:
        """Return whether the person is employed on a day."""
        return self.joined_day <= day and (self.left_day is None or day < self.left_day)


class Surge(NamedTuple):
    """Days in which a group gives more: the teams concerned, and the amount that all give, as a share of L."""

    name: str
    first_day: int
    days: int
    teams: frozenset[str]
    times_contacts: float
    chance: float
    point: float


@dataclass(eq=False)
class Organisation:
    """An organisation: its people, customers and calendar. L of a role is its limit for one action."""

    seed: int
    days: int
    teams: list[PlannedTeam]
    people: list[Person]
    managers: list[Person]
    limits: dict[str, int]
    surges: list[Surge]
    holidays: frozenset[int]
    season: float
    loyal_share: float
    customers: int
    habits: Habits

    def limit(self, person: Person) -> int:
        """Return the person's limit for one action, in minor units of the team's currency."""
        return round(self.limits[person.role] * person.team.level / 100) * 100

    def weight(self, day: int) -> float:
        """Return the contacts of a day relative to an ordinary day: season, weekday and holidays."""
        yearly = 1 + self.season * math.sin(2 * math.pi * (day + self.seed * 37) / 365)
        weekly = (1.15, 1.05, 1.0, 1.0, 0.95, 0.7, 0.5)[day % 7]
        return yearly * weekly * (0.4 if day in self.holidays else 1.3 if day - 1 in self.holidays else 1.0)


def draw(seed: int, size: int, days: int) -> Organisation:
    """Return the organisation of a seed, with about so many people."""
    random = Random(f"organisation {seed}")
    habits = draw_habits(Random(f"habits {seed}"))
    differ = random.uniform(0.2, 0.5)
    sites = random.sample(_SITES, random.choice((1, 1, 2, 3)))
    teams, people, managers = list[PlannedTeam](), list[Person](), list[Person]()
    while len(people) < size:
        team = draw_team(random, len(teams), sites)
        teams.append(team)
        number = min(random.choice((3, 5, 8, 10, 12, 15, 20, 25)), max(size - len(people), 3))
        first = len(people) + 1
        people += hire(random, team, range(first, first + number), days, differ)
        managers.append(team.members[0])
    base = random.choice((1_500, 2_000, 2_500, 5_000))
    limits = {"agent": base, "senior": 2 * base, "manager": 10 * base}
    some = frozenset(team.team_id for team in teams if random.random() < 0.6) or frozenset((teams[0].team_id,))
    everybody = frozenset(team.team_id for team in teams)
    surges = [
        Surge("promotion", random.randrange(20, days - 40), 7, everybody, 1.5, 0.35, random.choice((0.25, 0.4, 0.5))),
        Surge("recall", random.randrange(40, days - 15), 6, some, 1.8, 0.6, random.choice((0.6, 0.95, 1.0))),
    ]
    for _ in range(days // 25):
        team = random.choice(teams)
        surges.append(
            Surge(
                "storm",
                random.randrange(5, days - 3),
                1,
                frozenset((team.team_id,)),
                2.0,
                0.6,
                random.uniform(0.2, 1.0),
            )
        )
    return Organisation(
        seed,
        days,
        teams,
        people,
        managers,
        limits,
        surges,
        frozenset(random.sample(range(days), 3)),
        random.uniform(0.0, 0.35),
        random.uniform(0.02, 0.2),
        max(400, size * random.choice((30, 60, 120, 300))),
        habits,
    )


def hire(random: Random, team: PlannedTeam, numbers: range, days: int, differ: float) -> list[Person]:
    """Return the new members of a team by number, a manager first; ``differ`` is the spread of their generosity."""
    team.members = [
        _person(random, team, f"E-{number:04d}", days, manager=number == numbers.start, differ=differ)
        for number in numbers
    ]
    for one in team.members:
        one.friend = random.choice([other for other in team.members if other is not one])
    return team.members


def draw_team(random: Random, number: int, sites: Sequence[tuple[str, float, int]]) -> PlannedTeam:
    """Return a team without members; ``sites`` are currencies with price level and offset from UTC in hours."""
    currency, level, offset = random.choice(sites)
    desk = random.choice(_DESKS) if number else "general"
    name, delay = f"team-{number + 1:02d}", random.random()
    reasons = tuple((reason, random.random() ** 2) for reason in random.sample(_REASONS, random.randrange(4, 8)))
    high = {"specialist": 1.8, "vip": 1.5, "doorstep": 0.9}.get(desk, 1.0)
    customs = {
        reason: Custom(
            min(random.uniform(0.08, 0.3) * (1.5 if desk == "vip" else 1.0), 0.6),
            random.uniform(0.15, 0.45) * high,
            random.uniform(0.4, 0.9),
            _points(random, fee=reason == "fee"),
            0.9 if reason == "fee" else random.choice((0.0, 0.1, 0.3)),
        )
        for reason in (*_REASONS, "other")
    }
    return PlannedTeam(
        name,
        desk,
        random.choice(_CHANNELS.get(desk, (desk,))),
        currency,
        level,
        offset,
        f"crm-{currency.lower()}",
        random.choice(("day", "day", "early and late", "around the clock")),
        weekends=random.random() < 0.6,
        records_purchases=desk != "store" and random.random() < 0.75,
        purchase_delay_hours=0.0 if delay < 0.6 else 14.0 if delay < 0.9 else 40.0,
        shifts=random.choice(("clock", "clock", "roster", "none")),
        shift_delay_hours=random.choice((0.0, 0.0, 0.0, 12.0)),
        generosity=random.lognormvariate(0, 0.3),
        reasons=reasons,
        customs=customs,
        macros={reason: f"macro {name} {reason}" for reason in _REASONS if random.random() < 0.6},
    )


def _points(random: Random, *, fee: bool) -> tuple[float, ...]:
    """Return price points as shares of L; a fee is one point, often just below L."""
    if fee:
        return (random.choice((0.25, 0.5, 0.9995, 0.9995)),)
    return tuple(random.choice((0.1, 0.2, 0.25, 0.4, 0.5, 0.75, 1.0)) for _ in range(2))


def _person(random: Random, team: PlannedTeam, name: str, days: int, *, manager: bool, differ: float) -> Person:
    ai = not manager and team.desk == "general" and random.random() < 0.02
    role = "manager" if manager else "senior" if random.random() < 0.12 else "agent"
    joined = random.randrange(1, days - 10) if random.random() < 0.12 else -int(random.expovariate(1 / 500)) - 1
    left = random.randrange(max(joined, 0) + 10, days + 5) if random.random() < 0.08 else None
    if manager or ai:
        joined, left = min(joined, -400), None
    part_time = not ai and random.random() < 0.2
    slow = {"specialist": 0.5, "vip": 0.7, "back office": 0.6}.get(team.desk, 1.0)
    pace = 24.0 if ai else 1.5 if manager else random.lognormvariate(math.log(7), 0.3) * slow
    return Person(
        name,
        team,
        role if not ai else "agent",
        "ai" if ai else "human",
        joined,
        left,
        7 if ai else random.choice((2, 3)) if part_time else random.choice((4, 5, 5, 5)),
        24.0 if ai else 5.0 if part_time and random.random() < 0.5 else 8.0,
        pace,
        1.0 if ai else random.lognormvariate(0, differ),
        0.9 if ai else random.choice((0.0, 0.1, 0.4, 0.7)),
        random.uniform(0.1, 0.3) if random.random() < 0.1 else 0.0,
    )
