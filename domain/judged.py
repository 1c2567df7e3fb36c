"""Decisions as they were and as another policy would have them: what is read of them, and the count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from domain import records
from domain.money import Money, money_from_wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class Written(msgspec.Struct, frozen=True, gc=False):
    """Money as it is written."""

    amount: str
    currency: str

    @property
    def minor(self) -> int:
        """In minor units."""
        return money_from_wire({"amount": self.amount, "currency": self.currency}).minor


class Met(msgspec.Struct, frozen=True, gc=False):
    """A limit that was met, or a reason: its name (or rule), and what was used before."""

    name: str = ""
    rule: str = ""
    used: Written | None = None


class Decided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What judging again needs of a decision: the fields of its record, for readers in a hurry."""

    agent_id: str
    kind: str
    basis: str
    amount: Money
    source: str
    request_id: str
    seen_position: int
    role: str | None = None
    policy_version: int | None = None
    team_id: str | None = None
    customer_id: str | None = None
    interaction_id: str | None = None
    escalation_id: str | None = None
    limits: tuple[Met, ...] = ()
    reasons: tuple[Met, ...] = ()


class DecidedTaken(Decided, frozen=True, kw_only=True, gc=False):
    """Of `ActionTaken`."""

    action_id: str
    holder: str
    authority: str


class DecidedHeld(Decided, frozen=True, kw_only=True, gc=False):
    """Of `ActionHeld`."""

    action_id: str
    holder: str


class DecidedShort(Decided, frozen=True, kw_only=True, gc=False):
    """Of `AuthorityFellShort`."""

    outcome: str
    preview: bool


IN_A_HURRY: dict[type, type] = {
    records.ActionTaken: DecidedTaken, records.ActionHeld: DecidedHeld, records.AuthorityFellShort: DecidedShort,
}  # fmt: skip
"""Smaller classes that `WhatIf` takes as well; what it gives back for them is of no use."""


class Difference(NamedTuple):
    """A decision that would have been another; ``why`` are the rules in its way, in one world or the other."""

    position: int
    time: str
    agent_id: str
    team_id: str | None
    kind: str
    minor: int
    currency: str
    then: str
    now: str
    why: tuple[str, ...]
    escalation_id: str | None


class Tally:
    """Decisions as they were and as another policy would have them, counted."""

    def __init__(self) -> None:
        self.decisions = 0
        self.changes: dict[tuple[str, str, str, str], list[int]] = {}
        """Decisions, and their minor units, by kind, currency, outcome then and outcome under the other policy."""
        self.hit: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        """Rules that stood in the way, in history and under the other policy."""
        self.differences: list[Difference] = []
        self.saved: set[str] = set()
        """Escalations that would not have been needed."""
        self.waited: dict[str, tuple[str, float]] = {}
        """What they came to in history, and after how many seconds."""

    def tell(self, position: int, at: datetime, record: Any, now: str, reasons: Sequence[records.Reason], *,
             done: bool) -> None:  # fmt: skip
        """A decision, done or fallen short, and what it would have been."""
        amount = record.amount
        then = "taken" if done else record.outcome
        before = () if done else tuple([one.rule for one in record.reasons])
        why = tuple([one.rule for one in reasons])
        self.decisions += 1
        for name in before:
            self.hit[0][name] += 1
        for name in why:
            self.hit[1][name] += 1
        key = (record.kind, amount.currency, then, now)
        counted = self.changes.get(key)
        if counted is None:
            counted = self.changes[key] = [0, 0]
        counted[0] += 1
        counted[1] += amount.minor
        if now == "taken" and record.escalation_id is not None:
            self.saved.add(record.escalation_id)
        if then != now:
            self.differences.append(Difference(
                position, at.isoformat(), record.agent_id, record.team_id, record.kind, amount.minor, amount.currency,
                then, now, why or before, record.escalation_id,
            ))  # fmt: skip

    def ended(self, record: records.EscalationStep) -> bool:
        """An escalation came to its end in history; whether it would not have been needed."""
        if record.escalation_id not in self.saved:
            return False
        outcome = type(record).__name__.removeprefix("Escalation").lower()
        if isinstance(record, records.EscalationApproved) and record.amount.minor < record.asked.minor:
            outcome = "approved in part"
        self.waited[record.escalation_id] = outcome, record.waited_seconds
        return True
