"""Decisions as they were and as another policy would have them: what is read of them, and the count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


type Decision = decisions.ActionTaken | decisions.ActionHeld | decisions.AuthorityFellShort
DECISIONS = (decisions.ActionTaken, decisions.ActionHeld, decisions.AuthorityFellShort)


class DecisionSummary(msgspec.Struct, array_like=True, gc=False):
    """What judging again needs of a decision; amounts in minor units."""

    outcome: str
    """taken, held, escalate, refused."""
    agent_id: str
    kind: str
    basis: str
    minor: int
    currency: str
    source: str
    request_id: str
    seen_position: int
    role: str | None
    policy_version: int | None
    team_id: str | None
    customer_id: str | None
    interaction_id: str | None
    escalation_id: str | None
    on_interaction: int | None
    """What had been given on the interaction, where that limit was met."""
    to_customer: int | None
    """The same of the customer."""
    rules: tuple[str, ...]
    """What stood in the way."""
    action_id: str
    holder: str
    approved: bool
    """By somebody else."""
    preview: bool

    @property
    def done(self) -> bool:
        """Whether it was given, or money held for it."""
        return self.outcome in {"taken", "held"}


def decided(record: Decision) -> DecisionSummary:
    """The small form of a decision's record."""
    if isinstance(record, decisions.AuthorityFellShort):
        met = {one.rule: one.used for one in record.reasons}
        outcome, rules, action_id = str(record.outcome), tuple([one.rule for one in record.reasons]), ""
        approved, preview = False, record.preview
    else:
        met = {one.name: one.used for one in record.limits}
        outcome, rules, action_id = "held", (), record.action_id
        approved, preview = False, False
        if isinstance(record, decisions.ActionTaken):
            outcome, approved = "taken", record.authority != "own"
    interaction, customer = met.get("per_interaction"), met.get("per_customer")
    return DecisionSummary(
        outcome,
        record.agent_id,
        record.kind,
        record.basis,
        record.amount.minor,
        record.amount.currency,
        record.source,
        record.request_id,
        record.seen_position,
        record.role,
        record.policy_version,
        record.team_id,
        record.customer_id,
        record.interaction_id,
        record.escalation_id,
        None if interaction is None else interaction.minor,
        None if customer is None else customer.minor,
        rules,
        action_id,
        record.holder or "",
        approved,
        preview,
    )


SHOWN = 1000
"""Differences that are kept to be shown; all are counted."""


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


class OutcomeComparison:
    """Decisions as they were and as another policy would have them, counted."""

    def __init__(self) -> None:
        self.decisions = 0
        self.changes: dict[tuple[str, str, str, str], list[int]] = {}
        """Decisions, and their minor units, by kind, currency, outcome then and outcome under the other policy."""
        self.hit: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        """Rules that stood in the way, in history and under the other policy."""
        self.differences = 0
        self.shown: list[Difference] = []
        """The first `SHOWN` of them."""
        self.spared: list[tuple[str | None, int, str]] = []
        """What would have been given on the spot: escalation, if one was filed, minor units, currency."""
        self.saved: set[str] = set()
        """Escalations that would not have been needed."""
        self.waited: dict[str, tuple[str, float]] = {}
        """What they came to in history, and after how many seconds."""

    def tell(
        self, position: int, at: datetime, one: DecisionSummary, now: str, reasons: Sequence[decisions.Reason]
    ) -> None:
        """A decision, done or fallen short, and what it would have been."""
        then = "taken" if one.done else one.outcome
        before = one.rules
        why = tuple([reason.rule for reason in reasons])
        self.decisions += 1
        for name in before:
            self.hit[0][name] += 1
        for name in why:
            self.hit[1][name] += 1
        key = (one.kind, one.currency, then, now)
        counted = self.changes.get(key)
        if counted is None:
            counted = self.changes[key] = [0, 0]
        counted[0] += 1
        counted[1] += one.minor
        if now == "taken" and one.escalation_id is not None:
            self.saved.add(one.escalation_id)
        if then == now:
            return
        self.differences += 1
        if now == "taken":
            self.spared.append((one.escalation_id, one.minor, one.currency))
        if self.differences <= SHOWN:
            self.shown.append(
                Difference(
                    position,
                    at.isoformat(),
                    one.agent_id,
                    one.team_id,
                    one.kind,
                    one.minor,
                    one.currency,
                    then,
                    now,
                    why or before,
                    one.escalation_id,
                )
            )

    def ended(self, record: decisions.EscalationStep) -> bool:
        """An escalation came to its end in history; whether it would not have been needed."""
        if record.escalation_id not in self.saved:
            return False
        outcome = type(record).__name__.removeprefix("Escalation").lower()
        if isinstance(record, decisions.EscalationApproved) and record.amount.minor < record.asked.minor:
            outcome = "approved in part"
        self.waited[record.escalation_id] = outcome, record.waited_seconds
        return True
