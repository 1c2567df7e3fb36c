"""Honest traffic with injected misuse, and the ground truth about it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.ledgers import POLICY
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import DAY, HOUR, GuardEvent
from domain.events import decisions, facts
from domain.money import Money

BEGIN = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
LIMIT = 2_000
INTENSITIES = {"low": 0.4, "medium": 1.0, "high": 2.0}
_CAUSE: dict[str, Any] = {"source": "bench", "request_id": "r", "seen_position": 0}
_REASONS = ("late", "damaged", "missing", "wrong item", "rude", "billing", "waited")


@dataclass
class InjectedMisuse:
    """One person's misuse: the rule that should detect it, its subject, its begin and its intensity."""

    rule: str
    about: str
    at: float
    intensity: str


@dataclass
class World:
    """An organisation for some days; ``events`` are (time, body, action id), to be sorted."""

    seed: int
    agents: int = 60
    days: int = 60
    events: list[tuple[float, Any, str]] = field(default_factory=list)
    injected: list[InjectedMisuse] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.number = 0
        agent = POLICY["roles"]["agent"] | {"limits": {"refund": "20.00"}}
        policy = POLICY | {"roles": POLICY["roles"] | {"agent": agent}}
        self.add_event(
            0, decisions.PolicyPublished(**_CAUSE, policy=policy, version=1, published_by="owner", sha256="0")
        )

    # ------------------------------------------------------------------ words

    def add_event(self, at: float, body: Any, action_id: str = "") -> None:
        """Add an event, so many seconds after the beginning."""
        self.events.append((BEGIN + at, body, action_id))

    def new(self, prefix: str) -> str:
        """Return an unused name."""
        self.number += 1
        return f"{prefix}-{self.number}"

    def add_contact(self, at: float, agent: str, customer: str) -> str:
        """Add a customer's contact with an agent."""
        interaction = self.new("I")
        self.add_event(at, facts.InteractionOpened(interaction_id=interaction, agent_id=agent, customer_id=customer))
        return interaction

    def add_action(
        self,
        at: float,
        agent: str,
        minor: int,
        customer: str,
        interaction: str,
        *,
        order: str | None = None,
        reason: str | None = None,
        note: str | None = None,
    ) -> str:
        """Add an agent's action."""
        action_id = self.new("act")
        limit = decisions.Limit(name="per_action", limit=Money(LIMIT, "GBP"), used=Money(0, "GBP"))
        self.add_event(
            at,
            decisions.ActionTaken(
                **_CAUSE,
                agent_id=agent,
                kind="refund",
                amount=Money(minor, "GBP"),
                customer_id=customer,
                reason=reason or self.random.choice(_REASONS),
                interaction_id=interaction,
                order_id=order,
                action_id=action_id,
                role="agent",
                basis="goodwill",
                holder=f"agent:{agent}",
                period="2026-01",
                policy_version=1,
                training=(),
                limits=(limit,),
                authority="own",
                note_hash=note,
            ),
        )
        return action_id

    def add_purchase(self, at: float, customer: str, minor: int) -> str:
        """Add a customer's purchase; return the order."""
        order = self.new("O")
        total = Money(minor, "GBP")
        self.add_event(at, facts.PurchaseCompleted(order_id=order, customer_id=customer, total=total))
        return order

    # ------------------------------------------------------------------ honest days

    def honest(self) -> None:
        """Add thousands of contacts, goodwill in one of five, fees, storms, regulars, shifts, thanks and approvals."""
        regulars = [f"C-regular-{number}" for number in range(400)]
        for day in range(self.days):
            storm = 4 if self.random.random() < 1 / 30 else 1
            for number in range(self.agents):
                agent = f"A-{number}"
                start = day * DAY + (22 if number % 10 == 0 else 8) * HOUR
                self.add_event(start, facts.ShiftStarted(employee_id=agent))
                generous = 0.1 + 0.2 * (number % 7) / 7
                for _ in range(self._poisson(8 * storm)):
                    at = start + self.random.random() * 8 * HOUR
                    customer = self.random.choice(regulars) if self.random.random() < 0.1 else self.new("C")
                    interaction = self.add_contact(at, agent, customer)
                    if self.random.random() < generous:
                        order = self.add_purchase(at - HOUR, customer, 2_000 + self.random.randrange(9_000))
                        minor = 1_999 if self.random.random() < 0.05 else self.random_amount()
                        note = self.random.choice(("sorry", *(self.new("note") for _ in range(3))))
                        self.add_action(
                            at + 300, agent, min(minor, 1_999), customer, interaction, order=order, note=note
                        )
                self.add_event(start + 8 * HOUR + 600, facts.ShiftEnded(employee_id=agent))
                if self.random.random() < 0.1:
                    self.add_thanks(start, agent, f"A-{self.random.randrange(self.agents)}")
                if self.random.random() < 0.15:
                    self.add_escalation(
                        start + HOUR, agent, f"M-{self.random.randrange(5)}", yes=self.random.random() < 0.9
                    )

    def add_thanks(self, at: float, giver: str, receiver: str) -> None:
        """Add points from one person to another."""
        if giver != receiver:
            self.add_event(
                at,
                facts.RecognitionGiven(
                    recognition_id=self.new("T"), giver_id=giver, receiver_id=receiver, reason="thanks", points=10
                ),
            )

    def add_escalation(self, at: float, agent: str, manager: str, *, yes: bool, matter: str | None = None) -> None:
        """Add an escalation and its decision."""
        name = self.new("esc")
        common: dict[str, Any] = {**_CAUSE, "escalation_id": name, "agent_id": agent, "amount": Money(4_000, "GBP")}
        self.add_event(
            at,
            decisions.EscalationRequested(
                **common,
                action_id=self.new("act"),
                role="agent",
                kind="refund",
                basis="goodwill",
                reason="late",
                reasons=(),
                payer="team",
                to=(manager,),
                due=datetime.fromtimestamp(BEGIN + at, UTC),
                policy_version=1,
                budget=f"agent:{agent}",
                period="2026-01",
                currency="GBP",
                interaction_id=matter or self.new("I"),
            ),
        )
        step: dict[str, Any] = common | {
            "budget": f"agent:{agent}",
            "period": "2026-01",
            "waited_seconds": 600.0,
            "decided_by": manager,
        }
        if yes:
            self.add_event(
                at + 600, decisions.EscalationApproved(**step, asked=Money(4_000, "GBP"), action_id="act", paid_by="t")
            )
        else:
            self.add_event(at + 600, decisions.EscalationDenied(**step))

    def random_amount(self) -> int:
        """Return the amount of an action in minor units, mostly about 5.00."""
        return int(self.random.triangular(100, 1_999, 500))

    def _poisson(self, mean: float) -> int:
        limit, count, product = math.exp(-mean), 0, self.random.random()
        while product > limit:
            count, product = count + 1, product * self.random.random()
        return count

    # ------------------------------------------------------------------ misuse

    def inject(self, intensity: str) -> None:
        """Add each pattern once, each by another person, from the thirtieth day on."""
        factor = INTENSITIES[intensity]
        for place, (rule, misuse) in enumerate(PATTERNS.items()):
            agent, at = f"A-{1 + place * 3 % self.agents}", 30 * DAY + 10 * HOUR + self.random.randrange(5) * DAY
            about = misuse(self, agent, at, lambda number: max(1, round(number * factor))) or f"agent:{agent}"
            self.injected.append(InjectedMisuse(rule, about, BEGIN + at, intensity))

    def run(self) -> tuple[list[FlagDraft], int]:
        """Run the guard over all events; return its flags and the number of actions."""
        guard, raised, actions = Guard(), list[FlagDraft](), 0
        self.events.sort(key=lambda event: event[0])
        for position, (at, body, action_id) in enumerate(self.events, 1):
            actions += isinstance(body, (decisions.ActionTaken, facts.ActionReported))
            raised += guard.take(GuardEvent(position, at, at, body, action_id))
        return raised, actions


def _just_under(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(16)):
        customer = world.new("C")
        interaction = world.add_contact(at + number * 7 * HOUR // 2, agent, customer)
        world.add_action(at + number * 7 * HOUR // 2, agent, 1_850 + world.random.randrange(150), customer, interaction)


def _split(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(4)):
        order = world.add_purchase(at - HOUR, world.new("C"), 9_000)
        for part in range(2):
            world.add_action(at + number * DAY + part * 600, agent, 1_600, "C-split", world.new("I"), order=order)


def _favourite(world: World, agent: str, at: float, many: Any) -> None:
    friend = world.new("C-friend")
    for number in range(many(8)):
        interaction = world.add_contact(at + number * DAY, agent, friend)
        for _ in range(2):
            world.add_action(at + number * DAY, agent, 900, friend, interaction)


def _self_dealing(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(2)):
        body = facts.ActionReported(
            agent_id=agent, kind="refund", amount=Money(500, "GBP"), reason="late", customer_id=agent
        )
        world.add_event(at + number * DAY, body, world.new("act"))


def _collusion(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(6)):
        world.add_escalation(at + number * DAY, agent, "A-59", yes=True)
        world.add_escalation(at + number * DAY + HOUR, "A-59", agent, yes=True)


def _off_duty(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(3)):
        world.add_action(at + number * DAY - 7 * HOUR, agent, 700, world.new("C"), world.new("I"))


def _no_purchase(world: World, agent: str, at: float, many: Any) -> None:
    for _ in range(many(2)):
        world.add_action(at, agent, 1_200, world.new("C"), world.new("I"), order=world.new("O-nobody"))


def _burst(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(14)):
        world.add_action(at + number * 120, agent, world.random.randrange(300, 1500), world.new("C"), "I-burst")


def _outlier(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(120)):
        customer = world.new("C")
        interaction = world.add_contact(at + number * 3 * HOUR, agent, customer)
        world.add_action(at + number * 3 * HOUR, agent, world.random.randrange(800, 1750), customer, interaction)


def _claimant(world: World, _agent: str, at: float, many: Any) -> str:
    customer = world.new("C-claims")
    for number in range(many(5)):
        clerk = f"A-{20 + number}"
        world.add_action(
            at + number * DAY,
            clerk,
            800,
            customer,
            world.add_contact(at + number * DAY, clerk, customer),
            order=world.add_purchase(at - HOUR, customer, 5_000),
            reason=f"story {number}",
        )
    return f"customer:{customer}"


def _ring(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(12)):
        world.add_thanks(at + number * DAY, agent, "A-58")
        world.add_thanks(at + number * DAY, "A-58", agent)


def _self_raise(world: World, agent: str, at: float, _many: Any) -> None:
    common: dict[str, Any] = {**_CAUSE, "period": "2026-01", "amount": Money(5_000, "GBP"), "reason": "needed"}
    world.add_event(at, decisions.BudgetGranted(**common, holder=f"agent:{agent}", granted_by=agent))


def _copied(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(16)):
        customer = world.new("C")
        interaction = world.add_contact(at + number * 6 * HOUR, agent, customer)
        world.add_action(
            at + number * 6 * HOUR, agent, world.random_amount(), customer, interaction, note=f"copied by {agent}"
        )


def _overdrawn(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(2)):
        body = facts.ActionReported(
            agent_id=agent, kind="refund", amount=Money(3_500, "GBP"), reason="late", customer_id=world.new("C")
        )
        world.add_event(at + number * DAY, body, world.new("act"))


def _churn(world: World, agent: str, at: float, many: Any) -> None:
    for number in range(many(4)):
        action_id = world.add_action(at + number * DAY, agent, 900, world.new("C"), world.new("I"))
        world.add_event(
            at + number * DAY + HOUR,
            decisions.ActionReversed(
                **_CAUSE,
                action_id=action_id,
                holder=f"agent:{agent}",
                period="2026-01",
                amount=Money(900, "GBP"),
                agent_id=agent,
                recovered=True,
                reversed_by=agent,
                reason="x",
                relates_to=1,
            ),
        )


PATTERNS: dict[str, Any] = {
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
}
