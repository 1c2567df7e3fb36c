"""Notices of escalations: each step, as the source that filed the escalation is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from domain.events.decisions import (
    EscalationApproved,
    EscalationForwarded,
    EscalationRequested,
    EscalationStatus,
    EscalationStep,
)
from domain.events.facts import AgentKind
from domain.money import Money
from domain.serialization import Instant

if TYPE_CHECKING:
    from datetime import datetime


class EscalationNotice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of an escalation. Its ``id`` is that of the step's event: the same notice may come twice."""

    id: str
    position: int
    """The position of the step's event."""
    time: Instant
    source: str
    """The source that filed the escalation."""
    status: EscalationStatus
    escalation_id: str
    requested_by: str
    amount: Money
    """The amount asked for; once approved, the amount approved."""
    agent_kind: AgentKind = "human"
    team_id: str | None = None
    to: tuple[str, ...] | None = None
    """The people asked to decide, while the escalation is open."""
    due: Instant | None = None
    asked: Money | None = None
    """The amount asked for, of an approval; ``amount`` may be lower."""
    action_id: str | None = None
    decided_by: str | None = None
    on_behalf_of: str | None = None
    reason: str | None = None
    waited_seconds: float | None = None


def notice_of(
    record: EscalationRequested | EscalationStep, source: str, event_id: str, position: int, time: datetime
) -> EscalationNotice:
    """Return the notice of a step; ``source`` filed the escalation, the others are those of the step's event."""
    notice = EscalationNotice(
        id=event_id,
        position=position,
        time=time,
        source=source,
        status=record.status,
        escalation_id=record.escalation_id,
        requested_by=record.agent_id,
        amount=record.amount,
        team_id=record.team_id,
        reason=record.reason,
    )
    if isinstance(record, EscalationRequested):
        return replace(notice, to=record.to, due=record.due, agent_kind=record.agent_kind)
    decided = {name: getattr(record, name) for name in ("decided_by", "on_behalf_of", "waited_seconds")}
    match record:
        case EscalationForwarded():
            decided |= {"to": record.to, "due": record.due}
        case EscalationApproved():
            decided |= {"asked": record.asked, "action_id": record.action_id}
    return replace(notice, **decided)
