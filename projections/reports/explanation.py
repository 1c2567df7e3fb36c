"""The explanation of an action: its request, the rules and the budget at that time, and later events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

import msgspec

from domain.actions import is_reservation
from domain.budgets.budget import Budget
from domain.events.decisions import ActionHeld, ActionTaken, EscalationRequested, EscalationStep
from domain.events.facts import ActionReported
from domain.serialization import encode, plain
from projections.engine.events import read_event
from projections.engine.pages import PageRequest
from projections.policy_history import published_policies
from projections.views.audit_trail import read_trail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from domain.serialization import Json
    from ledger.store.log import Log, Recorded
    from projections.engine.storage import Row


class AppliedLimit(TypedDict):
    """A limit that applied to an action, and the amount used before."""

    name: str
    used: dict[str, str]
    limit: NotRequired[dict[str, str]]


class ExplainedAction(TypedDict):
    """The fields of an action's record that its explanation reads; the document has all fields of the record."""

    agent_id: str
    kind: str
    amount: dict[str, str]
    reason: str
    basis: NotRequired[str]
    owed: NotRequired[dict[str, str]]
    note: NotRequired[str]
    role: NotRequired[str]
    training: NotRequired[list[str]]
    customer_id: NotRequired[str]
    limits: NotRequired[list[AppliedLimit]]
    decided_by: NotRequired[str]
    on_behalf_of: NotRequired[str]


class PolicyThen(TypedDict):
    """The version of the policy then, and the role's rules in it."""

    version: int
    role: str
    rules: Json


class BudgetThen(TypedDict):
    """The balance of a budget at that time."""

    holder: str
    period: str
    granted: dict[str, str]
    spent: dict[str, str]
    reserved: dict[str, str]
    remaining: dict[str, str]


class EscalationLine(TypedDict):
    """A step of an escalation, with its decider and the time waited."""

    position: int
    time: str
    what: str
    decided_by: str | None
    on_behalf_of: str | None
    waited_seconds: float | None


class CorrectedLine(TypedDict):
    """A corrected fact: as known then, and as known now."""

    position: int
    known_then: str
    corrected_by: int
    recorded: str
    known_now: str


class Explanation(TypedDict):
    """All that the ledger knows of one action; the optional keys from ``source`` on only of a decided action."""

    action_id: str
    position: int
    time: str
    recorded: str
    action: ExplainedAction
    trail: list[Row]
    """Every event that names the action."""
    after: list[Row]
    """Later events of the action."""
    reported: NotRequired[str]
    interaction: NotRequired[list[Row]]
    """The trail of its interaction."""
    corrected: NotRequired[list[CorrectedLine]]
    source: NotRequired[str]
    request_id: NotRequired[str]
    seen_position: NotRequired[int]
    """The position up to which the decider had read."""
    policy: NotRequired[PolicyThen]
    budget_before: NotRequired[BudgetThen]
    budget_after: NotRequired[BudgetThen]
    escalation: NotRequired[list[EscalationLine]]


async def explain(log: Log, connection: sa.Connection, action_id: str) -> Explanation | None:
    """Return all that the ledger knows of one action, or ``None`` if there is no such action.

    The id of an escalation stands for the action that it asks for.
    """
    action_id = action_of_escalation(connection, action_id) or action_id
    lines = read_trail(connection, [("action", action_id)])
    stored = await _action_in(log, lines)
    if stored is None:
        return None
    event = read_event(stored)
    body = event.body
    assert isinstance(body, (ActionTaken, ActionHeld, ActionReported))
    found: Explanation = {
        "action_id": action_id,
        "position": event.position,
        "time": event.stored.time,
        "recorded": event.stored.recordedtime,
        "action": plain(body),
        "trail": lines,
        "after": [one for one in lines if one["position"] > event.position],
    }
    if isinstance(body, ActionReported):
        found["reported"] = "reported after it was taken, so no limit was checked before"
    else:
        await _add_authority(found, log, body, stored.subject)
        if body.escalation_id is not None:
            found["escalation"] = await _escalation(log, connection, body.escalation_id)
    if body.interaction_id:
        found["interaction"] = read_trail(connection, [("interaction", body.interaction_id)])
    about = {one["position"]: one for one in (*lines, *found.get("interaction", ()))}
    found["corrected"] = [_corrected(connection, one) for one in about.values() if one["corrected_by"]]
    return found


async def _action_in(log: Log, lines: Sequence[Row]) -> Recorded | None:
    """Return the event of the action that an audit trail is about: its decision, else its report, else ``None``."""
    reported: Recorded | None = None
    for line in lines:
        recorded = await log.at(line["position"])
        if recorded is None:
            continue
        body = read_event(recorded).body
        if isinstance(body, ActionTaken) or (isinstance(body, ActionHeld) and not is_reservation(body)):
            return recorded
        if isinstance(body, ActionReported) and reported is None:
            reported = recorded
    return reported


def action_of_escalation(connection: sa.Connection, escalation_id: str) -> str | None:
    """Return the id of the action that an escalation asks for, or ``None`` if there is no such escalation."""
    lines = read_trail(connection, [("escalation", escalation_id)])
    return next((line["action_id"] for line in lines if line["action_id"] is not None), None)


def _corrected(connection: sa.Connection, line: Row) -> CorrectedLine:
    (now,) = read_trail(connection, page=PageRequest(1, after=line["corrected_by"] - 1))
    return {
        "position": line["position"],
        "known_then": line["what"],
        "corrected_by": now["position"],
        "recorded": now["recorded"],
        "known_now": now["what"],
    }


async def _escalation(log: Log, connection: sa.Connection, escalation_id: str) -> list[EscalationLine]:
    """Return the steps of an escalation, each with its decider and the time waited."""
    steps: list[EscalationLine] = []
    for line in read_trail(connection, [("escalation", escalation_id)]):
        recorded = await log.at(line["position"])
        body = read_event(recorded).body if recorded is not None else None
        if isinstance(body, (EscalationRequested, EscalationStep)):
            steps.append(
                {
                    "position": line["position"],
                    "time": line["time"],
                    "what": line["what"],
                    "decided_by": getattr(body, "decided_by", None),
                    "on_behalf_of": getattr(body, "on_behalf_of", None),
                    "waited_seconds": getattr(body, "waited_seconds", None),
                }
            )
    return steps


async def _add_authority(found: Explanation, log: Log, action: ActionTaken | ActionHeld, subject: str) -> None:
    """Add the request, the policy then, and the budget before and after the action."""
    events = [read_event(stored) for stored in await log.read_subject(subject) if stored.position <= found["position"]]
    records = [(event.body, event.time) for event in events]
    published = {one.version: one.policy for one in await published_policies(log)}
    rules = published.get(action.policy_version, {}).get("roles", {}).get(action.role)
    found["source"] = action.source
    found["request_id"] = action.request_id
    found["seen_position"] = action.seen_position
    found["policy"] = {"version": action.policy_version, "role": action.role, "rules": rules}
    found["budget_before"] = _balance(records[:-1])
    found["budget_after"] = _balance(records)


def _balance(records: list[tuple[msgspec.Struct, datetime]]) -> BudgetThen:
    return msgspec.json.decode(encode(Budget.from_records(records).balance()), type=BudgetThen)
