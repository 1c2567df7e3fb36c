"""Decisions as they were made and as another policy would make them: a summary of each, and the comparison."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.decisions.owed import OrderAccount
from domain.events import decisions
from domain.matters import SECONDS, matter_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


type Decision = decisions.ActionTaken | decisions.ActionHeld | decisions.AuthorityFellShort
DECISIONS = (decisions.ActionTaken, decisions.ActionHeld, decisions.AuthorityFellShort)


class DecisionSummary(msgspec.Struct, array_like=True, gc=False):
    """The fields of a decision that a replay needs; amounts in minor units."""

    outcome: str
    """One of taken, held, escalate, refused."""
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
    """The amount given on the interaction before, where that limit applied."""
    to_customer: int | None
    """The amount given to the customer before, where that limit applied."""
    rules: tuple[str, ...]
    """The rules that stood in the way."""
    action_id: str
    holder: str
    approved: bool
    """True if another person approved the action."""
    preview: bool
    order_id: str | None = None
    owed_minor: int | None = None
    """The part of an entitlement or a correction that needed no authority; ``None`` where no proof was asked for."""
    order: OrderAccount | None = None
    """The account of the order as the decider saw it, where it looked."""

    @property
    def counted_minor(self) -> int:
        """The part that counts as goodwill, in minor units."""
        if self.basis == "goodwill":
            return self.minor
        return 0 if self.owed_minor is None else self.minor - self.owed_minor

    @property
    def done(self) -> bool:
        """True if the action was taken, or money held for it."""
        return self.outcome in {"taken", "held"}


def decided(record: Decision) -> DecisionSummary:
    """Return the summary of a decision's record."""
    if isinstance(record, decisions.AuthorityFellShort):
        met = {one.rule: one.used for one in record.reasons}
        paid = next((one.limit for one in record.reasons if one.rule == "owed"), None)
        outcome, rules, action_id = str(record.outcome), tuple([one.rule for one in record.reasons]), ""
        approved, preview = False, record.preview
    else:
        met = {one.name: one.used for one in record.limits}
        paid = next((one.limit for one in record.limits if one.name == "owed"), None)
        outcome, rules, action_id = "held", (), record.action_id
        approved, preview = False, False
        if isinstance(record, decisions.ActionTaken):
            outcome, approved = "taken", record.authority != "own"
    interaction, customer, back = met.get("per_interaction"), met.get("per_customer"), met.get("owed")
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
        record.order_id,
        None if record.owed is None else record.owed.minor,
        None if paid is None or back is None else OrderAccount(paid.minor, back.minor),
    )


SHOWN = 1000
"""The most differences that are kept in full; all are counted."""


class Difference(NamedTuple):
    """A decision with another outcome under the other policy; ``why`` are the rules in its way under either policy."""

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


class SparedRequest(msgspec.Struct, gc=False):
    """An action that would have been taken at once, and the escalation that history needed for it, if one was filed."""

    escalation_id: str | None
    minor: int
    currency: str
    kind: str
    role: str | None
    seconds: float
    agent_id: str


class OutcomeComparison:
    """A comparison of decisions as they were made and as another policy would make them."""

    def __init__(self) -> None:
        self.decisions = 0
        self.changes: dict[tuple[str, str, str, str], list[int]] = {}
        """Count and minor units of decisions, by kind, currency, outcome in history and under the other policy."""
        self.hit: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        """How often each rule stood in the way, in history and under the other policy."""
        self.differences = 0
        self.shown: list[Difference] = []
        """The first `SHOWN` differences."""
        self.spared: list[SparedRequest] = []
        """Actions that would have been taken at once."""
        self.stopped: dict[tuple[str, str | None, str, str], list[int]] = {}
        """Count and minor units of actions that would not have been taken at once, by agent, role, kind, currency."""
        self._open: dict[tuple[str, ...], SparedRequest] = {}
        """Those without an escalation yet, by matter."""
        self._first, self._last = math.inf, -math.inf
        self.saved: set[str] = set()
        """Ids of escalations that would not have been needed."""
        self.waited: dict[str, tuple[str, float]] = {}
        """Outcome in history and seconds waited, of escalations that would not have been needed."""

    @property
    def seconds(self) -> float:
        """The seconds between the earliest and the latest compared decision, by their times."""
        return max(self._last - self._first, 0.0)

    def tell(
        self, position: int, at: datetime, one: DecisionSummary, now: str, reasons: Sequence[decisions.Reason]
    ) -> None:
        """Count a decision with its outcome in history and its outcome ``now``, under the other policy."""
        then = "taken" if one.done else one.outcome
        before = one.rules
        why = tuple([reason.rule for reason in reasons])
        moment = at.timestamp()
        self._first, self._last = min(self._first, moment), max(self._last, moment)
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
        self._tell_difference(one, then, now, at)
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

    def _tell_difference(self, one: DecisionSummary, then: str, now: str, at: datetime) -> None:
        """Count an action that would be taken at once under one policy alone."""
        if then == "taken":
            stopped = self.stopped.setdefault((one.agent_id, one.role, one.kind, one.currency), [0, 0])
            stopped[0] += 1
            stopped[1] += one.minor
        if now == "taken":
            spared = SparedRequest(
                one.escalation_id, one.minor, one.currency, one.kind, one.role, at.timestamp(), one.agent_id
            )
            self.spared.append(spared)
            if one.escalation_id is None:
                self._open[matter_of(one, one.minor, one.currency)] = spared

    def asked(self, record: decisions.EscalationRequested, at: datetime) -> bool:
        """Note an escalation that was filed by a separate request; return whether it would not have been needed."""
        if record.escalation_id in self.saved:
            return True  # a request filed it at once; an earlier request for the same matter would count it again
        matter = matter_of(record, record.amount.minor, record.amount.currency)
        spared = self._open.get(matter)
        if spared is None or at.timestamp() > spared.seconds + SECONDS:
            return False
        del self._open[matter]
        spared.escalation_id = record.escalation_id
        self.saved.add(record.escalation_id)
        return True

    def ended(self, record: decisions.EscalationStep) -> bool:
        """Note the end of an escalation in history; return whether it would not have been needed."""
        if record.escalation_id not in self.saved:
            return False
        outcome: str = record.status
        if isinstance(record, decisions.EscalationApproved) and record.amount.minor < record.asked.minor:
            outcome = "approved in part"
        self.waited[record.escalation_id] = outcome, record.waited_seconds
        return True
