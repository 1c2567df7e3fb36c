"""The policy in force, read from the log: there are few of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.cloudevents import parse_time
from projections.events import read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.records import PolicyPublished
    from ledger.log import Log

_POLICY_SUBJECT = "ledger.policy"


async def published_policies(log: Log) -> list[PolicyPublished]:
    """All policies, as they were published, the oldest first."""
    return [read_event(stored).body for stored in await log.read_subject(_POLICY_SUBJECT)]


def in_force(published: Sequence[PolicyPublished]) -> PolicyPublished | None:
    """The newest of them that is enforced and has begun; none where there is none."""
    now, found = datetime.now(UTC), None
    for one in published:
        if one.policy.get("mode", "enforced") == "enforced" and parse_time(str(one.policy["effective_from"])) <= now:
            found = one
    return found


async def policy_in_force(log: Log) -> dict[str, Any]:
    """The newest policy that is in force, as it was published; empty where there is none."""
    found = in_force(await published_policies(log))
    return found.policy if found is not None else {}
