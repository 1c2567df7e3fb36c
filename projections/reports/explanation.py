"""The explanation of an action: its request, the rules and the budget at that time, and later events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from domain.budgets.budget import Budget
from domain.events.decisions import ActionHeld, ActionTaken, EscalationRequested, EscalationStep
from domain.events.facts import ActionReported
from domain.serialization import encode, plain
from projections.engine.events import read_event
from projections.policy_history import published_policies
from projections.views.audit_trail import read_trail

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from ledger.store.log import Log


async def explain(log: Log, connection: sa.Connection, action_id: str) -> dict[str, Any] | None:
    """Return all that the ledger knows of one action, or ``None`` if there is no such action.

    Keys: ``action`` (the record), ``position``, ``time``, ``recorded``, ``trail`` (every event that names the action),
    ``escalation`` (its events), ``after`` (later events of the action), ``interaction`` (the trail of its interaction),
    ``corrected`` (facts as known then and as known now). A decided action also has ``source``, ``request_id``,
    ``seen_position`` (the position up to which the decider had read), ``policy`` (version and the role's rules then),
    ``budget_before``, ``budget_after``.
    """
    lines = read_trail(connection, [("action", action_id)])
    for line in lines:
        recorded = await log.at(line["position"])
        if recorded is None:
            continue
        event = read_event(recorded)
        if not isinstance(event.body, (ActionTaken, ActionHeld, ActionReported)) or _only_reserves(event.body):
            continue
        body = event.body
        found: dict[str, Any] = {
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
            found |= await _authority(log, body, recorded.subject, event.position)
            if body.escalation_id is not None:
                found["escalation"] = await _escalation(log, connection, body.escalation_id)
        if body.interaction_id:
            found["interaction"] = read_trail(connection, [("interaction", body.interaction_id)])
        about = {one["position"]: one for one in (*lines, *found.get("interaction", ()))}
        found["corrected"] = [_corrected(connection, one) for one in about.values() if one["corrected_by"]]
        return found
    return None


def _only_reserves(body: Any) -> bool:
    """Return whether this record reserves money for an open escalation, so it is not an action yet."""
    return isinstance(body, ActionHeld) and body.escalation_id is not None


def _corrected(connection: sa.Connection, line: dict[str, Any]) -> dict[str, Any]:
    (now,) = read_trail(connection, after=line["corrected_by"] - 1, limit=1)
    return {
        "position": line["position"],
        "known_then": line["what"],
        "corrected_by": now["position"],
        "recorded": now["recorded"],
        "known_now": now["what"],
    }


async def _escalation(log: Log, connection: sa.Connection, escalation_id: str) -> list[dict[str, Any]]:
    """Return the steps of an escalation, each with its decider and the time waited."""
    steps: list[dict[str, Any]] = []
    for line in read_trail(connection, [("escalation", escalation_id)]):
        recorded = await log.at(line["position"])
        body = read_event(recorded).body if recorded is not None else None
        if isinstance(body, (EscalationRequested, EscalationStep)):
            known = {name: getattr(body, name, None) for name in ("decided_by", "on_behalf_of", "waited_seconds")}
            steps.append({name: line[name] for name in ("position", "time", "what")} | known)
    return steps


async def _authority(log: Log, action: ActionTaken | ActionHeld, subject: str, position: int) -> dict[str, Any]:
    events = [read_event(stored) for stored in await log.read_subject(subject) if stored.position <= position]
    records = [(event.body, event.time) for event in events]
    published = {one.version: one.policy for one in await published_policies(log)}
    rules: Any = published.get(action.policy_version, {}).get("roles", {}).get(action.role)
    return {
        "source": action.source,
        "request_id": action.request_id,
        "seen_position": action.seen_position,
        "policy": {"version": action.policy_version, "role": action.role, "rules": rules},
        "budget_before": _balance(records[:-1]),
        "budget_after": _balance(records),
    }


def _balance(records: list[tuple[Any, datetime]]) -> Any:
    return msgspec.json.decode(encode(Budget.from_records(records).balance()))
