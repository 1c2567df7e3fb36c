"""A small world for the guard's stories: events in a person's words, each with its position and time."""

import random
from datetime import UTC, datetime
from typing import Any, Literal

from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import HOUR, GuardEvent
from domain.events import decisions, facts
from domain.events.facts import Basis
from domain.money import Money
from tests.support.documents import Document

BEGIN = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
GUARDED_POLICY: Document = {
    "currency": "GBP",
    "time_zone": "UTC",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "default_role": "agent",
    "roles": {
        "agent": {"budget": "900.00", "limits": {"refund": "20.00", "credit": "20.00", "fee_waiver": "20.00"}},
        "manager": {"budget": "9000.00", "limits": {"refund": "200.00"}, "approves": {"refund": "200.00"}},
    },
}


class Story:
    """A guard that is fed events by their hour since the beginning; it keeps the flags that the guard raises."""

    def __init__(self, guard: Guard | None = None, seed: int = 7) -> None:
        self.guard = guard or Guard()
        self.raised: list[FlagDraft] = []
        self.seen: list[GuardEvent] = []
        self.random = random.Random(seed)
        self.hour = 0.0
        self.tell(
            decisions.PolicyPublished(**_CAUSE, policy=GUARDED_POLICY, version=1, published_by="owner", sha256="0")
        )

    def tell(self, body: Any, hour: float | None = None, action_id: str = "", corrects: int | None = None) -> int:
        """Feed an event of this hour, which is never earlier than the last one; return its position."""
        self.hour = max(self.hour, self.hour if hour is None else hour)
        moment = BEGIN + (self.hour if hour is None else hour) * HOUR
        seen = GuardEvent(
            len(self.seen) + 1, moment, BEGIN + self.hour * HOUR, body, action_id, f"crm\0{len(self.seen)}", corrects
        )
        self.seen.append(seen)
        self.raised += self.guard.take(seen)
        return seen.position

    def gives(
        self,
        agent: str,
        amount: float,
        hour: float | None = None,
        *,
        kind: str = "refund",
        customer: str | None = None,
        order: str | None = None,
        interaction: str | None = None,
        reason: str = "late",
        limit: float | None = 20.0,
        reported: bool = False,
        basis: Basis = "goodwill",
        **extra: Any,
    ) -> str:
        """Let an agent take an action; return the action's id."""
        number = len(self.seen)
        action_id = f"act-{number}"
        common: Document = {
            "agent_id": agent,
            "kind": kind,
            "amount": Money(round(amount * 100), "GBP"),
            "reason": reason,
            "customer_id": customer or f"C-{number}",
            "interaction_id": interaction or f"I-{number}",
            "order_id": order,
            "basis": basis,
        }
        if reported:
            self.tell(facts.ActionReported(**common), hour, action_id)
            return action_id
        limits = (
            decisions.Limit(
                name="per_action", limit=Money(round(limit * 100), "GBP") if limit else None, used=Money(0, "GBP")
            ),
        )
        self.tell(
            decisions.ActionTaken(
                **_CAUSE,
                **common,
                action_id=action_id,
                role="agent",
                holder=f"agent:{agent}",
                period="2026-01",
                policy_version=1,
                training=(),
                limits=limits,
                authority="own",
                **extra,
            ),
            hour,
        )
        return action_id

    def falls_short(self, amount: float, outcome: Literal["escalate", "refused"] = "escalate", **more: Any) -> None:
        """Let agent A-1 ask for a refund beyond the own authority."""
        fields: Document = {
            "agent_id": "A-1",
            "kind": "refund",
            "basis": "goodwill",
            "reason": "late",
            "reasons": (),
        } | more
        self.tell(
            decisions.AuthorityFellShort(
                **_CAUSE, **fields, amount=Money(round(amount * 100), "GBP"), outcome=outcome, preview=False
            )
        )

    def contact(self, agent: str, hour: float | None = None, customer: str | None = None) -> str:
        """Let an agent have a contact without an action."""
        number = len(self.seen)
        name = f"I-{number}"
        self.tell(
            facts.InteractionOpened(interaction_id=name, agent_id=agent, customer_id=customer or f"C-{number}"), hour
        )
        return name

    def ordinary(self, agents: int = 12, days: int = 30, contacts: int = 6) -> None:
        """Let honest days pass: each agent has some contacts a day, and takes an action in one of three."""
        for day in range(days):
            for agent in range(agents):
                for _ in range(contacts):
                    hour = max(self.hour, day * 24 + 9 + self.random.random() * 8)
                    self.hour = day * 24 + 9.0 if hour > day * 24 + 20 else self.hour
                    interaction = self.contact(f"A-{agent}", None)
                    if self.random.random() < 1 / 3:
                        amount = round(self.random.triangular(1, 19.9, 5), 2)
                        self.gives(f"A-{agent}", amount, interaction=interaction, customer=f"C-{len(self.seen)}")
            self.later((day + 1) * 24 + 9)

    def later(self, hour: float) -> None:
        """Let time pass until this hour."""
        self.hour = max(self.hour, hour)
        self.tell(facts.ShiftStarted(employee_id="nobody"))

    def waits(self) -> list[str]:
        """Let the time for late facts pass; return the rules that raised a new flag."""
        self.later(self.hour + 0.5)
        return self.rules()

    def night(self) -> None:
        """Run the statistical rules, as each night."""
        self.later(self.hour + 24)

    def rules(self) -> list[str]:
        """Return the rules that raised a new flag, in order."""
        return [one.finding.rule for one in self.raised if one.number == 1]


_CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}
