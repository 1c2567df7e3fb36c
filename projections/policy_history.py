"""Published policies, read from the log. They are few, so no view is needed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from domain.policy.history import PolicyHistory
from ledger.store.cloudevents import parse_time, stored_decoder
from projections.engine.events import read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Rules
    from ledger.store.log import Log

POLICY_SUBJECT = "ledger.policy"


async def published_policies(log: Log, position: int | None = None) -> list[PolicyPublished]:
    """Return all published policies, the oldest first; with a ``position``, those up to it."""
    stored = await log.read_subject(POLICY_SUBJECT)
    return [read_event(one).body for one in stored if position is None or one.position <= position]


def in_force_now(published: Sequence[PolicyPublished]) -> Rules | None:
    """Return the policy in force at this moment, or ``None``."""
    return PolicyHistory.of(published).in_force(datetime.now(UTC))


async def policy_in_force(log: Log, position: int | None = None) -> dict[str, Any]:
    """Return the document of the policy in force, or an empty one.

    With a ``position``, it is the policy that was in force when that event was recorded.
    """
    published, moment = await published_policies(log, position), datetime.now(UTC)
    if position and (recorded := await log.at(position)) is not None:
        moment = parse_time(stored_decoder.decode(recorded.data).recordedtime)
    rules = PolicyHistory.of(published).in_force(moment)
    return rules.policy.document if rules is not None else {}
