"""Misuse by people that otherwise work honestly: a scheme for each rule, at three strengths, and its evasions.

``EVASIONS`` names the ways in which a scheme avoids its rule. Each scheme adds events and their numbers to its
``Misuse``; the guard sees only the events.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Unpack

from app.demo.organisations.world import GiftDetails, Misuse, PlannedContact, World
from domain.abuse.history import DAY, HOUR
from domain.events import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.demo.organisations.organisation import Person
    from domain.events.facts import Basis, Kind

type Scheme = Callable[[Plot], None]

STRENGTHS = ("weak", "moderate", "strong")
SHARE_OF_STRENGTHS = (0.15, 0.7, 0.15)
SHARE_OF_EVASIONS = 0.25
"""The share of moderate cases that evade their rule; they are reported apart."""
_OFTEN = 10
"""Gifts in thirty days; misuse that multiplies fewer gifts adds too few to be seen."""
EVASIONS: dict[str, tuple[str, ...]] = {
    "R1": ("84 to 90 % of the limit", "two kinds"),
    "R2": ("25 hours apart", "two kinds"),
    "R3": ("three accounts", "as many contacts without a gift"),
    "R4": ("look-alike id", "linked after the gift"),
    "R5": ("ring of three",),
    "R6": ("reported later",),
    "R7": ("order of another customer", "order before the history"),
    "R8": ("over four days",),
    "R9": ("half as much",),
    "R10": ("three accounts",),
    "R11": ("ring of three",),
    "R12": ("two grant each other",),
    "R13": ("four texts",),
    "R14": ("barely beyond",),
    "R15": ("reversed by a robot",),
    "R16": ("paid order of another customer",),
    "R17": ("contacts are opened for them",),
    "R18": ("over forty days", "by five people"),
}


class Plot:
    """A misuse in the making: its world, its person, its days, and the misuse as the truth keeps it."""

    def __init__(self, world: World, person: Person, misuse: Misuse, first_day: int, random: Random) -> None:
        self.world, self.person, self.misuse, self.first_day, self.random = world, person, misuse, first_day, random
        self.limit = world.organisation.limit(person)
        self.usual = max(200, round(self.limit * 0.3))
        self.evasion = misuse.evasion

    def times(self, weak: int, moderate: int, strong: int) -> int:
        """Return how often, by the strength of the misuse."""
        return (weak, moderate, strong)[STRENGTHS.index(self.misuse.strength)]

    def moments(self, number: int, days: int) -> list[float]:
        """Return so many moments on duty within so many days from the first, in order."""
        shifts = self.world.on_duty(self.person, self.first_day, self.first_day + days)
        begins = [start + self.random.random() * (end - start - HOUR) for start, end in shifts]
        while len(begins) < number and shifts:
            start, end = self.random.choice(shifts)
            begins.append(start + self.random.random() * (end - start - HOUR))
        return sorted(self.random.sample(begins, number)) if len(begins) >= number else sorted(begins)

    def real(self, number: int, days: int) -> list[PlannedContact]:
        """Return so many of the person's contacts in which nothing was given, within so many days."""
        end = (self.first_day + days) * DAY
        open_contacts = self.world.contacts[self.person.employee_id]
        some = [one for one in open_contacts if self.first_day * DAY <= one.at < end]
        chosen = sorted(self.random.sample(some, min(number, len(some))))
        for one in chosen:
            open_contacts.remove(one)
        return chosen

    def prove(self, *numbers: int) -> None:
        """Note events that prove the misuse."""
        self.misuse.numbers.update(numbers)

    def gift(self, contact: PlannedContact, minor: int, **details: Unpack[GiftDetails]) -> str:
        """Add a gift as part of the misuse; return the action's id."""
        if details.get("note") is None:
            details["note"] = self.world.new("note")
        number, action_id = self.world.give(contact, minor, **details)
        self.prove(number)
        return action_id

    def amount(self) -> int:
        """Return an ordinary amount."""
        share = min(0.15 + self.random.random() * 0.5, 0.95)
        return max(50, round(self.limit * share / 50) * 50)

    def call(
        self, at: float, customer: str | None = None, reason: str = "damaged", order: str | None = None
    ) -> PlannedContact:
        """Add a contact; without a customer it is about a new account."""
        return self.world.contact(at, self.person, customer or self.world.new("C"), reason, order)

    def colleague(self) -> Person:
        """Return another member of the team that stays."""
        mates = [
            one
            for one in (*self.person.team.members, *self.world.organisation.people)
            if one is not self.person and one.here(self.first_day) and one.left_day is None and one.kind == "human"
        ]
        return self.random.choice(mates[: max(3, len(self.person.team.members) - 1)])

    def ring(self) -> list[Person]:
        """Return the person with a colleague, and where the scheme evades its rule with a third; all are subjects."""
        ring = [self.person, self.colleague()]
        if self.misuse.evasion:
            third = self.colleague()
            ring += [third] if third not in ring else []
        self.misuse.subjects |= {f"agent:{one.employee_id}" for one in ring}
        return ring


def plant(world: World) -> None:
    """Plant misuse by 1 to 4 % of the staff, each by another person, in a world whose honest days exist."""
    organisation = world.organisation
    random = Random(f"misuse {organisation.seed}")
    number = max(1, round(len(organisation.people) * random.uniform(0.01, 0.04)))
    rules = list(SCHEMES)
    turn, busy = organisation.seed * 4, set[str]()
    for place in range(number):
        rule = rules[(turn + place) % len(rules)]
        strength = random.choices(STRENGTHS, SHARE_OF_STRENGTHS)[0]
        evades = strength == "moderate" and random.random() < SHARE_OF_EVASIONS
        _plant(world, random, rule, strength, random.choice(EVASIONS[rule]) if evades else "", busy)


def plant_strongly(world: World, rules: Sequence[str]) -> None:
    """Plant a strong case of each of these rules, each by another person."""
    random = Random(f"strong {world.organisation.seed}")
    busy = set[str]()
    for rule in rules:
        _plant(world, random, rule, "strong", "", busy)


def plant_densely(world: World, each: int) -> None:
    """Plant so many moderate cases of each rule, for recall alone: far more misuse than an organisation has."""
    random = Random(f"dense {world.organisation.seed}")
    busy = set[str]()
    for rule in SCHEMES:
        for _ in range(each):
            _plant(world, random, rule, "moderate", "", busy)


def plant_variants(world: World) -> None:
    """Plant one weak and one strong case of each rule, and one moderate case of each evasion."""
    random = Random(f"variants {world.organisation.seed}")
    busy = set[str]()
    for rule, evasions in EVASIONS.items():
        for strength in ("weak", "strong"):
            _plant(world, random, rule, strength, "", busy)
        for evasion in evasions:
            _plant(world, random, rule, "moderate", evasion, busy)


def _plant(world: World, random: Random, rule: str, strength: str, evasion: str, busy: set[str]) -> None:
    organisation = world.organisation
    first_day = random.randrange(25, organisation.days - 35)
    fit = [
        person
        for person in organisation.people
        if person.employee_id not in busy
        and person.kind == "human"
        and person.here(first_day - 20)
        and (person.left_day is None or person.left_day > first_day + 35)
        and _suits(rule, person, organisation.teams[0].currency)
        and len(world.contacts[person.employee_id]) > organisation.days / 2
        and (rule != "R9" or _gives_often(world, person, first_day))
    ]
    if not fit:
        return
    person = random.choice(fit)
    subjects = frozenset((f"agent:{person.employee_id}",))
    misuse = Misuse(rule, strength, evasion, subjects, first_day * DAY)
    SCHEMES[rule](Plot(world, person, misuse, first_day, random))
    if misuse.numbers:
        world.truth.append(misuse)
        busy.update(name.removeprefix("agent:") for name in misuse.subjects)


def _gives_often(world: World, person: Person, first_day: int) -> bool:
    """Return whether a person gives so much in thirty days that a multiple of it is more than a few gifts."""
    begin = first_day * DAY
    return sum(begin <= at < begin + 30 * DAY for at in world.gifts[person.employee_id]) >= _OFTEN


def _suits(rule: str, person: Person, policy_currency: str) -> bool:
    team = person.team
    if rule == "R14":  # the policy has limits in one currency
        return person.role != "manager" and team.currency == policy_currency
    if rule == "R12":
        return person.role in {"manager", "senior"}
    if rule == "R6":
        return team.shifts != "none" and team.desk != "doorstep"
    if rule in {"R7", "R16"}:
        return team.records_purchases and (rule == "R7" or person.role != "manager")
    if rule in {"R1", "R2", "R8", "R9", "R13", "R15", "R5"}:
        return person.role != "manager" and team.desk != "doorstep"
    return person.role != "manager"


def _just_under(plot: Plot) -> None:
    low, high = (0.84, 0.895) if plot.evasion.startswith("84") else (0.905, 0.998)
    for place, contact in enumerate(plot.real(plot.times(6, 12, 24), 28)):
        kind: Kind = "credit" if plot.evasion == "two kinds" and place % 2 else "refund"
        plot.gift(contact, round(plot.limit * plot.random.uniform(low, high)), kind=kind)


def _split(plot: Plot) -> None:
    for at in plot.moments(plot.times(3, 5, 10), 24):
        customer = plot.world.new("C")
        order = plot.world.purchase(at - 30 * HOUR, plot.person, customer, 4 * plot.limit)
        contact = plot.call(at, customer, order=order)
        later = 25.2 * HOUR if plot.evasion == "25 hours apart" else plot.random.uniform(0.2, 5) * HOUR
        second: Kind = "credit" if plot.evasion == "two kinds" else "refund"
        plot.gift(contact, round(plot.limit * plot.random.uniform(0.6, 0.95)), at=at + 300)
        plot.gift(contact, round(plot.limit * plot.random.uniform(0.6, 0.95)), at=at + later, kind=second)


def _favourite(plot: Plot) -> None:
    friends = [plot.world.new("C") for _ in range(3 if plot.evasion == "three accounts" else 1)]
    plot.misuse.subjects |= {f"customer:{friend}" for friend in friends}
    for place, at in enumerate(plot.moments(plot.times(4, 8, 16), 33)):
        friend = friends[place % len(friends)]
        order = plot.world.purchase(at - 50 * HOUR, plot.person, friend, 2 * plot.limit)
        plot.gift(plot.call(at, friend, plot.random.choice(("late", "damaged", "missing")), order), plot.amount())
        if plot.evasion.startswith("as many"):
            plot.call(at + HOUR / 2, friend, "late")


def _self_dealing(plot: Plot) -> None:
    customer = plot.person.employee_id
    if plot.evasion == "look-alike id":
        customer = customer.lower().replace("-", "_")
    elif plot.evasion or plot.random.random() < 0.5:
        customer = plot.world.new("C")
        declared = facts.RelationshipDeclared(
            employee_id=plot.person.employee_id, customer_id=customer, nature="family"
        )
        late = 40 * DAY if plot.evasion else -DAY
        plot.prove(plot.world.add(plot.first_day * DAY + late, declared))
    plot.misuse.subjects |= {f"customer:{customer}"}
    for at in plot.moments(plot.times(1, 2, 4), 28):
        order = plot.world.purchase(at - 50 * HOUR, plot.person, customer, 2 * plot.limit)
        contact = PlannedContact(at, plot.person, customer, "", "late", order)
        plot.gift(contact, plot.amount(), reported=True)


def _collusion(plot: Plot) -> None:
    ring = plot.ring()
    for at in plot.moments(plot.times(5, 8, 14), 33):
        for place, asker in enumerate(ring):
            approver, when = ring[(place + 1) % len(ring)], at + place * 600
            contact = plot.world.contact(when, asker, plot.world.new("C"), "damaged")
            minor = round(plot.world.organisation.limit(asker) * plot.random.uniform(1.2, 2.0))
            plot.prove(*plot.world.escalate(contact, minor, approver.employee_id, at=when + 60, approved=True))
            number, _ = plot.world.give(contact, minor, at=when + 660, decided_by=approver.employee_id)
            plot.prove(number)


def _off_duty(plot: Plot) -> None:
    shifts = plot.world.on_duty(plot.person, plot.first_day, plot.first_day + 33)
    for _, end in plot.random.sample(shifts, min(len(shifts), plot.times(2, 5, 12))):
        at = end + plot.random.uniform(1.6, 4) * HOUR
        plot.gift(plot.call(at - 300, reason="late"), plot.amount(), at=at, reported=True if plot.evasion else None)


def _no_purchase(plot: Plot) -> None:
    others = [one for one in plot.world.contacts[plot.person.team.members[-1].employee_id] if one.order]
    for at in plot.moments(plot.times(1, 3, 8), 28):
        order = plot.world.new("O")
        if plot.evasion == "order of another customer" and others:
            order = plot.random.choice(others).order or order
        elif plot.evasion:
            order = f"O-old-{order}"
        plot.gift(plot.call(at, order=order), plot.amount())


def _burst(plot: Plot) -> None:
    number = plot.times(8, 14, 28)
    begins = plot.moments(4 if plot.evasion else 1, 12 if plot.evasion else 20)
    for place in range(number):
        at = begins[place % len(begins)] + plot.random.random() * 2 * HOUR
        if plot.random.random() < 0.5:
            contact = plot.call(at)
        else:
            contact = PlannedContact(at, plot.person, plot.world.new("C"), "", "damaged", None)
        plot.gift(contact, plot.amount())


def _outlier(plot: Plot) -> None:
    person, days = plot.person, 30
    end = (plot.first_day + days) * DAY
    honest = sum(plot.first_day * DAY <= at < end for at in plot.world.gifts[person.employee_id])
    number = round(honest * plot.times(1, 2, 4) / (2 if plot.evasion else 1))  # twice, three or five times as often
    for contact in plot.real(number, days):
        plot.gift(contact, round(plot.amount() * 1.3))


def _claimant(plot: Plot) -> None:
    customers = [plot.world.new("C") for _ in range(3 if plot.evasion else 1)]
    plot.misuse.subjects = frozenset(f"customer:{one}" for one in customers)
    clerks = [
        one
        for one in plot.world.organisation.people
        if one.team.currency == plot.person.team.currency and one.kind == "human" and one.role != "manager"
    ]
    reasons = ("late", "damaged", "missing", "wrong item", "billing", "rude", "waited")
    for place in range(plot.times(5, 8, 14)):
        clerk = plot.random.choice(clerks)
        shifts = plot.world.on_duty(clerk, plot.first_day, plot.first_day + 28)
        if not shifts:
            continue
        start, end = plot.random.choice(shifts)
        at, customer = start + plot.random.random() * (end - start), customers[place % len(customers)]
        order = plot.world.purchase(at - 50 * HOUR, clerk, customer, 2 * plot.limit)
        contact = plot.world.contact(at, clerk, customer, reasons[place % len(reasons)], order)
        number, _ = plot.world.give(contact, plot.amount(), note=plot.world.new("note"))
        plot.prove(number)


def _ring(plot: Plot) -> None:
    ring = plot.ring()
    for at in plot.moments(plot.times(5, 8, 16), 33):
        for place, giver in enumerate(ring):
            plot.prove(plot.world.thank(at + place * HOUR, giver, ring[(place + 1) % len(ring)]))


def _self_raise(plot: Plot) -> None:
    name = plot.person.employee_id
    for at in plot.moments(plot.times(1, 2, 4), 28):
        if plot.evasion:
            mate = plot.colleague()
            plot.misuse.subjects |= {f"agent:{mate.employee_id}"}
            plot.prove(plot.world.grant(at, name, mate, 10_000))
            plot.prove(plot.world.grant(at + HOUR, mate.employee_id, plot.person, 10_000))
        else:
            plot.prove(plot.world.grant(at, name, plot.person, 10_000))


def _copied(plot: Plot) -> None:
    texts = [plot.world.new("copied") for _ in range(4 if plot.evasion else 1)]
    for place, contact in enumerate(plot.real(plot.times(8, 16, 32), 28)):
        plot.gift(contact, plot.amount(), note=texts[place % len(texts)])


def _overdrawn(plot: Plot) -> None:
    low, high = (1.01, 1.08) if plot.evasion else (1.3, 2.0)
    for at in plot.moments(plot.times(1, 3, 8), 28):
        plot.gift(plot.call(at, reason="late"), round(plot.limit * plot.random.uniform(low, high)), reported=True)


def _churn(plot: Plot) -> None:
    for at in plot.moments(plot.times(3, 5, 10), 28):
        minor = plot.amount()
        action_id = plot.gift(plot.call(at), minor)
        robot = "robot" if plot.evasion else None
        plot.prove(plot.world.reverse(at + plot.random.uniform(1, 30) * HOUR, plot.person, action_id, minor, robot))


def _unproven(plot: Plot) -> None:
    paid = [one.order for some in plot.world.contacts.values() for one in some if one.order]
    for place, contact in enumerate(plot.real(plot.times(3, 6, 14), 33)):
        order = plot.random.choice(paid) if plot.evasion and paid else None
        basis: Basis = "correction" if place % 3 == 0 else "entitlement"
        plot.gift(contact._replace(order=order), plot.amount(), basis=basis)


def _links(plot: Plot) -> None:
    """Give to invented customers, or to both sides of a link that is cut between the gifts."""
    world, cuts = plot.world, not plot.evasion and plot.random.random() < 0.3
    if cuts:
        a, b = world.new("C"), world.new("C")
        begin = plot.first_day * DAY
        world.add(begin - 5 * DAY, facts.CustomerLinked(a=a, b=b, relation="same_person"))
        times = plot.moments(plot.times(2, 4, 8), 24)
        middle = times[len(times) // 2] - HOUR if times else begin
        plot.prove(world.add(middle, facts.CustomerUnlinked(a=a, b=b, relation="same_person")))
        for at in times:
            plot.gift(plot.call(at, a if at < middle else b), plot.amount())
        return
    for at in plot.moments(plot.times(5, 9, 16), 28):
        contact = (
            plot.call(at) if plot.evasion else PlannedContact(at, plot.person, world.new("C"), "", "damaged", None)
        )
        plot.gift(contact, plot.amount())


def _circle(plot: Plot) -> None:
    ring = [plot.person]
    while len(ring) < (5 if plot.evasion == "by five people" else 3 if plot.random.random() < 0.5 else 2):
        mate = plot.colleague()
        if mate not in ring:
            ring.append(mate)
    plot.misuse.subjects |= {f"agent:{one.employee_id}" for one in ring}
    apart = 40 * DAY / len(ring) if plot.evasion == "over forty days" else plot.random.uniform(4, 60) * HOUR
    for at in plot.moments(plot.times(1, 2, 4), 10 if plot.evasion else 20):
        for place, giver in enumerate(ring):
            taker = ring[(place + 1) % len(ring)]
            plot.prove(plot.world.grant(at + place * apart, giver.employee_id, taker, 10_000))


SCHEMES: dict[str, Scheme] = {
    "R1": _just_under,
    "R2": _split,
    "R3": _favourite,
    "R4": _self_dealing,
    "R5": _collusion,
    "R6": _off_duty,
    "R7": _no_purchase,
    "R8": _burst,
    "R9": _outlier,
    "R10": _claimant,
    "R11": _ring,
    "R12": _self_raise,
    "R13": _copied,
    "R14": _overdrawn,
    "R15": _churn,
    "R16": _unproven,
    "R17": _links,
    "R18": _circle,
}
