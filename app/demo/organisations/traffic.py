"""Honest days: shifts, contacts, gifts by custom, escalations, thanks, mistakes put right, late and missing facts."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from app.demo.organisations.organisation import Surge
from app.demo.organisations.world import BEGIN, PlannedContact, World, midnight
from domain.abuse.history import DAY, HOUR
from domain.events import decisions, facts
from domain.money import Money

if TYPE_CHECKING:
    from random import Random

    from app.demo.organisations.organisation import Custom, Organisation, Person
    from domain.events.facts import Basis, Kind

_KINDS: tuple[Kind, ...] = ("refund", "refund", "refund", "credit")
_ROTA = {"day": (8.5,), "early and late": (6.0, 14.0), "around the clock": (6.0, 14.0, 22.0)}


class _Day(NamedTuple):
    number: int
    weight: float
    surges: dict[str, list[Surge]]


class HonestTraffic:
    """Adds the honest days of an organisation to a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._organisation: Organisation = world.organisation
        self._random: Random = world.random
        self._loyal = max(50, self._organisation.customers // 8)
        self._vips: dict[str, list[str]] = {}
        self._preferred: dict[str, list[str]] = {}
        self._relatives: dict[str, str] = {}
        self._moods: dict[tuple[str, int], float] = {}
        self._claims: dict[str, float] = {}
        self._habits = self._organisation.habits
        self._mixes = {
            team.team_id: ([one for one, _ in team.reasons], list(accumulate(weight for _, weight in team.reasons)))
            for team in self._organisation.teams
        }

    def add(self) -> None:
        """Add everything from the staff list to the last day."""
        self._start()
        organisation = self._organisation
        for day in range(organisation.days):
            surges: dict[str, list[Surge]] = {}
            for surge in organisation.surges:
                if surge.first_day <= day < surge.first_day + surge.days:
                    for team_id in surge.teams:
                        surges.setdefault(team_id, []).append(surge)
            today = _Day(day, organisation.weight(day), surges)
            for person in organisation.people:
                if person.here(day):
                    self._person(person, today)

    def _start(self) -> None:
        world, random, organisation = self._world, self._random, self._organisation
        main = organisation.teams[0]
        limits = {
            role: Money(round(minor * main.level / 100) * 100, main.currency).text
            for role, minor in organisation.limits.items()
        }
        policy = {
            "currency": main.currency,
            "time_zone": "UTC",
            "period": "month",
            "effective_from": "2020-01-01T00:00:00Z",
            "default_role": "agent",
            "roles": {
                role: {"budget": "9999.00", "limits": {"refund": limit, "credit": limit}}
                for role, limit in limits.items()
            },
        }
        cause: dict[str, Any] = {"source": "office", "request_id": "r", "seen_position": 0}
        world.add(
            -5 * DAY, decisions.PolicyPublished(**cause, policy=policy, version=1, published_by="owner", sha256="0")
        )
        for person in organisation.people:
            world.duty[person.employee_id], world.contacts[person.employee_id] = {}, []
            world.gifts[person.employee_id] = []
            manager = person.team.members[0].employee_id
            joined = facts.EmployeeJoined(
                employee_id=person.employee_id,
                role=person.role,
                team_ids=(person.team.team_id,),
                manager_id=manager if person.role != "manager" else None,
            )
            at = person.joined_day * DAY
            world.add(at, joined, delay=0.0 if at > -4 * DAY else -at - 4 * DAY)
            if person.left_day is not None and person.left_day < organisation.days:
                world.add(person.left_day * DAY + DAY, facts.EmployeeLeft(employee_id=person.employee_id))
            if person.team.desk == "vip":
                self._vips[person.employee_id] = [world.new("C") for _ in range(12)]
            if random.random() < 0.1:
                related = self._relatives[person.employee_id] = self._customer()
                declared = facts.RelationshipDeclared(
                    employee_id=person.employee_id, customer_id=related, nature="family"
                )
                world.add(1.0, declared)
        for _ in range(organisation.customers // 12):
            a, b = self._customer(), self._customer()
            if a != b:
                at = 2.0 if random.random() < 0.7 else random.random() * organisation.days * DAY
                world.add(at, facts.CustomerLinked(a=a, b=b, relation="household"))
                if random.random() < organisation.habits.relinks:
                    cut = facts.CustomerUnlinked(a=a, b=b, relation="household")
                    world.add(at + random.random() * organisation.days * DAY / 2, cut)
        for _ in range(len(organisation.people) // 2):
            person = random.choice(organisation.people)
            self._preferred.setdefault(person.employee_id, []).append(self._loyal_customer())

    # ------------------------------------------------------------------ a person's day

    def _person(self, person: Person, today: _Day) -> None:
        shift = self._shift(person, today.number)
        if shift is None:
            return
        start, end = shift
        self._world.duty[person.employee_id][today.number] = shift
        surges = today.surges.get(person.team.team_id, [])
        times = math.prod(surge.times_contacts for surge in surges)
        hours = min((end - start) / HOUR / 8, 1.0)
        for _ in range(_poisson(self._random, person.pace * hours * today.weight * times)):
            self._contact(person, start + self._random.random() * (end - start), surges)
        self._around(person, start)

    def _shift(self, person: Person, day: int) -> tuple[float, float] | None:
        """Return the actual shift of a day, and add its facts as the team records them."""
        team, random = person.team, self._random
        if person.kind == "ai":
            return midnight(day, 0), midnight(day + 1, 0) - 1
        if (day % 7 >= 5 and not team.weekends) or (day in self._organisation.holidays and random.random() < 0.7):
            return None
        if random.random() > person.days_a_week / (7 if team.weekends else 5) * 0.93:
            return None
        starts = _ROTA[team.rota]
        turn = (int(person.employee_id[2:]) + day // 7) % len(starts)
        planned = midnight(day, team.offset_hours) + starts[turn] * HOUR
        start, end = planned + random.uniform(-600, 600), planned + person.hours * HOUR + random.uniform(-300, 900)
        overtime = random.random() < self._habits.overtime
        if overtime:
            end += random.uniform(0.3, 1.2) * HOUR
        if team.shifts != "none" and random.random() > self._habits.lost_shifts:  # some shifts are never recorded
            told = (planned, planned + person.hours * HOUR) if team.shifts == "roster" else (start, end)
            delay = team.shift_delay_hours * HOUR
            self._world.add(told[0], facts.ShiftStarted(employee_id=person.employee_id), delay=delay)
            self._world.add(told[1], facts.ShiftEnded(employee_id=person.employee_id), delay=delay)
        return start, end

    def _contact(self, person: Person, at: float, surges: list[Surge]) -> None:
        world, random, team = self._world, self._random, person.team
        customer, surge = self._caller(person), random.choice(surges) if surges else None
        if surge is not None and random.random() < 0.6:
            reason, custom = surge.name, None
        else:
            names, weights = self._mixes[team.team_id]
            reason, surge = random.choices(names, cum_weights=weights)[0], None
            custom = team.customs[reason]
        chance = surge.chance if surge else custom.chance * team.generosity * person.generosity if custom else 0.0
        chance *= self._mood(person, at) * self._claim(customer)
        limit = self._organisation.limit(person)
        gives = random.random() < min(chance, 0.85)
        if customer == self._relatives.get(person.employee_id):
            return  # a colleague takes over
        order = None
        if random.random() < (0.65 if gives else 0.15):
            paid = round(limit * (self._habits.paid + random.lognormvariate(0.5, 0.7)))
            order = world.purchase(at - random.expovariate(1 / 3) * DAY - HOUR, person, customer, paid)
        contact = world.contact(at, person, customer, reason, order)
        if not gives:
            world.contacts[person.employee_id].append(contact)
            return
        minor = self._amount(person, custom, surge)
        if minor > limit:
            if random.random() < 0.5:
                minor = limit
            else:
                self._ask(contact, minor)
                return
        self._give(contact, minor)

    def _give(self, contact: PlannedContact, minor: int) -> None:
        world, random, person = self._world, self._random, contact.person
        kind, habits = random.choice(person.team.kinds.get(contact.reason, _KINDS)), self._habits
        if random.random() < habits.owed:
            self._owe(contact, minor)
            return
        if random.random() < habits.loose:
            contact = contact._replace(interaction="")
        if person.team.desk == "doorstep" and random.random() < habits.beyond:
            minor = round(self._organisation.limit(person) * random.uniform(1.02, 1.3))
        at = contact.at + random.uniform(60, 900)
        offline = person.team.desk == "doorstep" or random.random() < habits.offline
        note = self._note(person, contact.reason)
        raced = random.random() < habits.races
        number, action_id = world.give(contact, minor, at=at, kind=kind, note=note, reported=offline, raced=raced)
        world.gifts[person.employee_id].append(at)
        if random.random() < habits.slips and not offline:
            world.reverse(at + 600, person, action_id, minor)
            world.give(contact, max(minor // 2, 100), at=at + 700, kind=kind)
        elif random.random() < habits.second_thoughts and not offline:
            world.reverse(at + random.uniform(2, 40) * HOUR, person, action_id, minor)
        elif random.random() < habits.second_things:
            world.give(contact, max(minor // 3, 100), at=at + random.expovariate(1 / 4) * HOUR, kind=kind)
        if person.team.desk == "doorstep" and random.random() < habits.overdrawn:
            world.overdraw(at + 10 * HOUR, person, action_id, minor, number)

    def _owe(self, contact: PlannedContact, minor: int) -> None:
        """Give back what the customer is owed; mostly a payment shows it."""
        world, random = self._world, self._random
        if random.random() < self._habits.unproven:
            contact = contact._replace(order=None)
        elif contact.order is None:
            contact = contact._replace(
                order=world.purchase(contact.at - 2 * DAY, contact.person, contact.customer, 2 * minor)
            )
        basis: Basis = "entitlement" if random.random() < 0.7 else "correction"
        world.give(contact, minor, basis=basis, note=self._note(contact.person, contact.reason))

    def _ask(self, contact: PlannedContact, minor: int) -> None:
        world, random, person = self._world, self._random, contact.person
        fell_short = decisions.AuthorityFellShort(
            source=person.team.source,
            request_id="r",
            seen_position=0,
            agent_id=person.employee_id,
            kind="refund",
            basis="goodwill",
            amount=Money(minor, person.team.currency),
            reason=contact.reason,
            outcome="escalate",
            reasons=(),
            preview=False,
            interaction_id=contact.interaction,
            order_id=contact.order,
            customer_id=contact.customer,
        )
        at = contact.at + 200
        world.add(at, fell_short)
        if random.random() < self._habits.settles_for_limit:
            self._give(contact, self._organisation.limit(person))
            return
        if random.random() < 0.2:
            return
        own = person.team.members[0]
        approver = own if own is not person else random.choice(self._organisation.managers)
        if approver is person:
            return
        approved = random.random() > self._habits.denied
        world.escalate(contact, minor, approver.employee_id, at=at + 60, approved=approved)
        if approved:
            world.give(contact, minor, at=at + 700, decided_by=approver.employee_id)
        elif random.random() < 0.04:
            other = random.choice(self._organisation.managers)
            if other is not person:
                again = random.random() < 0.7
                world.escalate(contact, minor, other.employee_id, at=at + 5 * HOUR, approved=again)

    def _around(self, person: Person, start: float) -> None:
        """Add thanks to colleagues and a manager's grants."""
        random, world = self._random, self._world
        habits = self._habits
        if person.kind == "human" and random.random() < habits.thanks and person.friend is not None:
            receiver = person.friend if random.random() < habits.to_friend else random.choice(person.team.members)
            if random.random() < 0.15:
                receiver = random.choice(self._organisation.people)
            if receiver is not person:
                world.thank(start + HOUR, person, receiver)
        if person.role == "manager" and random.random() < 0.06:
            member = random.choice(person.team.members)
            if member is not person:
                world.grant(start + 2 * HOUR, person.employee_id, member, 5_000)
        if person.role == "manager" and random.random() < habits.delegations / 20:
            other = random.choice((*self._organisation.managers, *person.team.members))
            if other is not person:
                world.delegate(start, person, other)
        relative = self._relatives.get(person.employee_id)
        if relative is not None and random.random() < habits.relatives * 10 / 60:
            # A tenth of the people have a declared relative, and work on sixty days of a quarter.
            self._is_refused(person, relative, start + 3 * HOUR)

    def _is_refused(self, person: Person, customer: str, at: float) -> None:
        """Let an attempt at a relative's matter be refused; a colleague takes over."""
        team, minor = person.team, 100 * self._random.randrange(1, 10)
        reason = decisions.Reason(rule="self_dealing", message="a declared relation")
        refused = decisions.AuthorityFellShort(
            source=team.source,
            request_id="r",
            seen_position=0,
            agent_id=person.employee_id,
            kind="refund",
            basis="goodwill",
            amount=Money(minor, team.currency),
            reason="late",
            outcome="refused",
            reasons=(reason,),
            preview=False,
            customer_id=customer,
        )
        self._world.add(at, refused)

    # ------------------------------------------------------------------ customers, amounts, notes

    def _mood(self, person: Person, at: float) -> float:
        """Return a person's generosity this month relative to their own usual one."""
        key = person.employee_id, int(at // (30 * DAY))
        if key not in self._moods:
            self._moods[key] = self._random.lognormvariate(0, self._habits.moods) if person.kind == "human" else 1.0
        return self._moods[key]

    def _claim(self, customer: str) -> float:
        """Return a customer's chance of goodwill relative to the usual one."""
        if customer not in self._claims:
            self._claims[customer] = self._random.lognormvariate(0, self._habits.claims)
        return self._claims[customer]

    def _customer(self) -> str:
        return f"C-{self._random.randrange(self._organisation.customers)}"

    def _loyal_customer(self) -> str:
        """Return one of the customers that call often; some of them call far more often than others."""
        return f"C-{int(self._loyal * self._random.random() ** 1.3)}"

    def _caller(self, person: Person) -> str:
        random = self._random
        own = self._vips.get(person.employee_id)
        if own is not None and random.random() < 0.7:
            return random.choice(own)
        preferred = self._preferred.get(person.employee_id)
        if preferred is not None and random.random() < 0.03:
            return random.choice(preferred)
        return self._loyal_customer() if random.random() < self._organisation.loyal_share else self._customer()

    def _amount(self, person: Person, custom: Custom | None, surge: Surge | None) -> int:
        """Return an amount. Prices are the same for all roles; a senior or a manager gets matters of more worth."""
        random, team = self._random, person.team
        limit = round(self._organisation.limits["agent"] * team.level / 100) * 100
        if surge is not None:
            return round(limit * surge.point)
        assert custom is not None
        if random.random() < custom.points_share:
            return int(limit * random.choice(custom.points))
        worth = {"agent": 1.0, "senior": 1.5, "manager": 3.0}[person.role]
        minor = limit * custom.middle * worth * random.lognormvariate(0, custom.spread)
        return max(50, round(minor / 50) * 50)

    def _note(self, person: Person, reason: str) -> str | None:
        random, team = self._random, person.team
        if random.random() < self._habits.no_note:
            return None
        if random.random() < person.phrase:
            return f"phrase of {person.employee_id}"
        macro = team.macros.get(reason)
        if macro is not None and random.random() < person.pastes * self._habits.pastes:
            return macro
        if reason in {"promotion", "recall", "storm"} and random.random() < 0.5:
            return f"macro {reason} {BEGIN}"
        return self._world.new("note")


def _poisson(random: Random, mean: float) -> int:
    limit, count, product = math.exp(-mean), 0, random.random()
    while product > limit:
        count, product = count + 1, product * random.random()
    return count
