"""Why an action was allowed: what was asked, the rules and the budget then, what came after."""

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
    """Everything the ledger knows of one action; nothing where there is no such action.

    Keys: ``action`` (the record), ``position``, ``time``, ``recorded``, ``trail`` (every event that names the action),
    ``escalation`` (its events), ``after`` (what came of the action), ``interaction`` (the trail of its interaction),
    ``corrected`` (what was known then and is known now). Of what was decided: ``source``, ``request_id``,
    ``seen_position`` (how far the decider had read), ``policy`` (version and the role's rules then),
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
            found["reported"] = "taken already when it was told: no limit was asked before it"
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
    """Whether this holds money for an escalation that waits: not yet an action."""
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
    """What happened to an escalation: each step with who decided and how long it had waited."""
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
