"""A world: the events of an organisation with the times at which they were recorded, and the ground truth apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import msgspec

from app.demo.organisations.organisation import Person
from domain.abuse.history import DAY, HOUR, GuardEvent
from domain.events import decisions, facts
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.demo.organisations.organisation import Organisation
    from domain.events.facts import Basis, Kind

BEGIN = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
"""The first day of all worlds, a Monday."""


class PlannedContact(NamedTuple):
    """A contact of an agent with a customer; ``at`` is in seconds from the world's beginning."""

    at: float
    person: Person
    customer: str
    interaction: str
    reason: str
    order: str | None


class GiftDetails(TypedDict, total=False):
    """The details of an action that differ from those of an ordinary refund on the spot."""

    at: float
    kind: Kind
    note: str | None
    decided_by: str
    reported: bool | None
    basis: Basis
    raced: bool


class WorldEvent(NamedTuple):
    """An event of a world: its recorded time and its time in seconds since 1970, its number and its body."""

    recorded: float
    number: int
    at: float
    body: msgspec.Struct
    action_id: str


@dataclass
class Misuse:
    """A planted misuse: its rule, strength, evasion, subjects (``agent:...``, ``customer:...``) and proving events."""

    rule: str
    strength: str
    evasion: str
    subjects: frozenset[str]
    begin: float
    numbers: set[int] = field(default_factory=set)

    @property
    def moderate(self) -> bool:
        """True for misuse that counts for the recall of moderate cases."""
        return self.strength == "moderate" and not self.evasion


class World:
    """The events so far; ``add`` returns an event's number, and ``events`` orders them by recorded time."""

    def __init__(self, organisation: Organisation) -> None:
        self.organisation = organisation
        self.random = Random(f"world {organisation.seed}")
        self.truth: list[Misuse] = []
        self.contacts: dict[str, list[PlannedContact]] = {}
        """The contacts of each agent in which nothing was given."""
        self.gifts: dict[str, list[float]] = {}
        """The times of each agent's honest gifts."""
        self.duty: dict[str, dict[int, tuple[float, float]]] = {}
        """Each agent's shifts by day, as actual times."""
        self.purchases_from = 0.0
        """The time from which purchases are recorded."""
        self._events: list[tuple[float, int, float, msgspec.Struct, str]] = []
        self._names = 100_000

    def add(self, at: float, body: msgspec.Struct, action_id: str = "", *, delay: float = 0.0) -> int:
        """Add an event that happened at a time, recorded so many seconds later."""
        number = len(self._events)
        self._events.append((BEGIN + at + delay, number, BEGIN + at, body, action_id))
        return number

    def happened(self) -> list[WorldEvent]:
        """Return all events so far, by number."""
        return sorted((WorldEvent(*event) for event in self._events), key=lambda event: event.number)

    def events(self) -> tuple[list[GuardEvent], dict[int, int]]:
        """Return all events in order of recorded time, and each one's position by its number."""
        self._events.sort()
        positions = {number: position for position, (_, number, *_) in enumerate(self._events, 1)}
        return list(self._ordered()), positions

    def _ordered(self) -> Iterator[GuardEvent]:
        for position, (recorded, _, at, body, action_id) in enumerate(self._events, 1):
            yield GuardEvent(position, at, recorded, body, action_id)

    def new(self, prefix: str) -> str:
        """Return an unused name."""
        self._names += 1
        return f"{prefix}-{self._names}"

    # ------------------------------------------------------------------ events

    def contact(
        self, at: float, person: Person, customer: str, reason: str, order: str | None = None
    ) -> PlannedContact:
        """Add a contact."""
        one = PlannedContact(at, person, customer, self.new("I"), reason, order)
        body = facts.InteractionOpened(
            interaction_id=one.interaction,
            customer_id=customer,
            channel=person.team.channel,
            reason=reason,
            agent_id=person.employee_id,
            team_id=person.team.team_id,
            order_id=order,
        )
        self.add(at, body)
        return one

    def purchase(self, at: float, person: Person, customer: str, minor: int, order: str | None = None) -> str:
        """Add a purchase where the team's source records purchases; return the order."""
        order = order or self.new("O")
        if person.team.records_purchases and at > self.purchases_from:
            total = Money(max(minor, 100), person.team.currency)
            delay = person.team.purchase_delay_hours * HOUR * self.random.random()
            self.add(at, facts.PurchaseCompleted(order_id=order, customer_id=customer, total=total), delay=delay)
        return order

    def give(self, contact: PlannedContact, minor: int, **details: Unpack[GiftDetails]) -> tuple[int, str]:
        """Add an action for a contact; return its number and its id.

        A doorstep team reports its actions later; other teams ask the ledger.
        """
        person, action_id = contact.person, self.new("act")
        moment, decided_by = details.get("at", contact.at + 300), details.get("decided_by")
        common: dict[str, Any] = {
            "agent_id": person.employee_id,
            "kind": details.get("kind", "refund"),
            "basis": details.get("basis", "goodwill"),
            "amount": Money(minor, person.team.currency),
            "reason": contact.reason,
            "customer_id": contact.customer,
            "interaction_id": contact.interaction or None,
            "order_id": contact.order,
            "team_id": person.team.team_id,
        }
        reported = details.get("reported")
        if reported is None:
            reported = person.team.desk == "doorstep" and decided_by is None
        if reported:
            delay = self.random.uniform(0.2, 9) * HOUR
            return self.add(moment, facts.ActionReported(**common), action_id, delay=delay), action_id
        limits = _limit(self.organisation.limit(person), person.team.currency)
        if details.get("raced"):
            most = Money(3 * self.organisation.limit(person), person.team.currency)
            limits = (*limits, decisions.Limit(name="per_customer", limit=most, used=most))
        body = decisions.ActionTaken(
            **common,
            source=person.team.source,
            request_id="r",
            seen_position=0,
            action_id=action_id,
            role=person.role,
            holder=f"agent:{person.employee_id}",
            period="2026-01",
            policy_version=1,
            training=(),
            limits=limits,
            authority="approved" if decided_by else "own",
            decided_by=decided_by,
            note_hash=details.get("note"),
        )
        return self.add(moment, body), action_id

    def escalate(
        self, contact: PlannedContact, minor: int, approver: str, *, at: float, approved: bool
    ) -> tuple[int, int]:
        """Add a request for authority and its decision ten minutes later; return both numbers."""
        person, name = contact.person, self.new("esc")
        common: dict[str, Any] = {
            "source": person.team.source,
            "request_id": "r",
            "seen_position": 0,
            "escalation_id": name,
            "agent_id": person.employee_id,
            "amount": Money(minor, person.team.currency),
            "budget": f"agent:{person.employee_id}",
            "period": "2026-01",
            "interaction_id": contact.interaction,
            "customer_id": contact.customer,
        }
        asked = decisions.EscalationRequested(
            **common,
            action_id=self.new("act"),
            role=person.role,
            kind="refund",
            basis="goodwill",
            reason=contact.reason,
            reasons=(),
            payer="team",
            to=(approver,),
            due=datetime.fromtimestamp(BEGIN + at, UTC),
            policy_version=1,
            currency=person.team.currency,
        )
        step: dict[str, Any] = common | {"waited_seconds": 600.0, "decided_by": approver}
        first = self.add(at, asked)
        if not approved:
            return first, self.add(at + 600, decisions.EscalationDenied(**step))
        yes = decisions.EscalationApproved(**step, asked=common["amount"], action_id=asked.action_id, paid_by="team")
        return first, self.add(at + 600, yes)

    def reverse(self, at: float, person: Person, action_id: str, minor: int, by: str | None = None) -> int:
        """Add the reversal of an action, by its own agent if ``by`` is absent."""
        body = decisions.ActionReversed(
            **_posting(person, action_id, minor),
            source=person.team.source,
            recovered=True,
            reversed_by=by or person.employee_id,
            reason="wrong amount",
            relates_to=1,
        )
        return self.add(at, body)

    def overdraw(self, at: float, person: Person, action_id: str, minor: int, number: int) -> int:
        """Add the posting of a reported action (its event's number is ``number``) beyond a quarter of the budget."""
        body = decisions.ActionCharged(
            **_posting(person, action_id, minor),
            source="resolution-ledger",
            overdrawn=Money(max(minor // 4, 1), person.team.currency),
            relates_to=number,
        )
        return self.add(at, body)

    def thank(self, at: float, giver: Person, receiver: Person) -> int:
        """Add points from one person to another."""
        body = facts.RecognitionGiven(
            recognition_id=self.new("T"),
            giver_id=giver.employee_id,
            receiver_id=receiver.employee_id,
            reason="thanks",
            points=10,
            giver_kind="manager" if giver.role == "manager" else "peer",
        )
        return self.add(at, body)

    def grant(self, at: float, giver: str, person: Person, minor: int) -> int:
        """Add a grant."""
        body = decisions.BudgetGranted(
            source="office",
            request_id=self.new("g"),
            seen_position=0,
            holder=f"agent:{person.employee_id}",
            period="2026-01",
            amount=Money(minor, person.team.currency),
            granted_by=giver,
            reason="a busy week",
        )
        return self.add(at, body)

    def delegate(self, at: float, person: Person, other: Person) -> int:
        """Add a delegation of a week."""
        begin = datetime.fromtimestamp(BEGIN + at, UTC)
        body = facts.DelegationDeclared(
            from_employee_id=person.employee_id,
            to_employee_id=other.employee_id,
            from_time=begin,
            until_time=begin + timedelta(days=7),
        )
        return self.add(at, body)

    def on_duty(self, person: Person, first_day: int, last_day: int) -> list[tuple[float, float]]:
        """Return the person's shifts in [first_day, last_day)."""
        return [shift for day, shift in self.duty[person.employee_id].items() if first_day <= day < last_day]


@lru_cache(1_000)
def _limit(minor: int, currency: str) -> tuple[decisions.Limit, ...]:
    return (decisions.Limit(name="per_action", limit=Money(minor, currency), used=Money(0, currency)),)


def _posting(person: Person, action_id: str, minor: int) -> dict[str, Any]:
    """Return the fields that every posting to a person's budget has, but for its source."""
    return {
        "request_id": "r",
        "seen_position": 0,
        "action_id": action_id,
        "holder": f"agent:{person.employee_id}",
        "period": "2026-01",
        "amount": Money(minor, person.team.currency),
        "agent_id": person.employee_id,
    }


def midnight(day: int, offset_hours: int) -> float:
    """Return the local midnight of a day, in seconds from the world's beginning."""
    return day * DAY - offset_hours * HOUR
