"""Why an action was allowed: what was asked, the rules and the budget then, what came after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.budget import Budget
from domain.facts import ActionReported
from domain.records import ActionTaken, PolicyPublished
from domain.wire import plain
from projections.events import read_event
from projections.trail import read_trail

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ledger.log import Log

POLICY_SUBJECT = "ledger.policy"


async def explain(log: Log, connection: sa.Connection, action_id: str) -> dict[str, Any] | None:
    """Everything the ledger knows of one action; nothing where there is no such action.

    Keys: ``action`` (the record), ``position``, ``time``, ``recorded``, ``source``, ``request_id``,
    ``policy`` (version and the role's rules then), ``budget_before``, ``budget_after``, ``trail`` (every
    event that names the action) and ``interaction`` (the trail of its interaction).
    """
    lines = read_trail(connection, [("action", action_id)])
    for line in lines:
        recorded = await log.at(line["position"])
        if recorded is None:
            continue
        event = read_event(recorded)
        if not isinstance(event.body, (ActionTaken, ActionReported)):
            continue
        found: dict[str, Any] = {
            "action_id": action_id,
            "position": event.position,
            "time": event.stored.time,
            "recorded": event.stored.recordedtime,
            "action": plain(event.body),
            "trail": lines,
        }
        if isinstance(event.body, ActionTaken):
            found |= await _authority(log, event.body, recorded.subject, event.position)
        else:
            found["reported"] = "taken already when it was told: no limit was asked before it"
        if event.body.interaction_id:
            found["interaction"] = read_trail(connection, [("interaction", event.body.interaction_id)])
        return found
    return None


async def _authority(log: Log, action: ActionTaken, subject: str, position: int) -> dict[str, Any]:
    events = [read_event(stored) for stored in await log.read_subject(subject) if stored.position <= position]
    records = [(event.body, event.time) for event in events]
    rules: Any = None
    for stored in await log.read_subject(POLICY_SUBJECT):
        published = read_event(stored).body
        if isinstance(published, PolicyPublished) and published.version == action.policy_version:
            rules = published.policy.get("roles", {}).get(action.role)
    return {
        "source": action.source,
        "request_id": action.request_id,
        "policy": {"version": action.policy_version, "role": action.role, "rules": rules},
        "budget_before": Budget.from_records(records[:-1]).wire(),
        "budget_after": Budget.from_records(records).wire(),
    }
