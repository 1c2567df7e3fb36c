"""The policy in force, read from the log: there are few of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.cloudevents import parse_time
from projections.events import read_event

if TYPE_CHECKING:
    from domain.records import PolicyPublished
    from ledger.log import Log

_POLICY_SUBJECT = "ledger.policy"


async def published_policies(log: Log) -> list[PolicyPublished]:
    """All policies, as they were published, the oldest first."""
    return [read_event(stored).body for stored in await log.read_subject(_POLICY_SUBJECT)]


async def policy_in_force(log: Log) -> dict[str, Any]:
    """The newest policy that is in force, as it was published; empty where there is none."""
    now, found = datetime.now(UTC), dict[str, Any]()
    for published in await published_policies(log):
        document = published.policy
        if document.get("mode", "enforced") == "enforced" and parse_time(str(document["effective_from"])) <= now:
            found = document
    return found
