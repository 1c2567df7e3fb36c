"""Published policies, read from the log. They are few, so no view is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypedDict

from domain.events.decisions import LimitEvidence, PolicyApproved, PolicyObjected, PolicyProposed, PolicyPublished
from domain.policy.history import PolicyHistory
from domain.policy.linting import difference
from domain.policy.parsing import read_policy
from domain.policy.proposals import Proposals
from domain.serialization import Json, plain
from ledger.store.cloudevents import parse_time, stored_decoder, time_text
from projections.engine.events import read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.policy.model import Policy, Rules
    from domain.policy.proposals import Proposal
    from ledger.store.log import Log

POLICY_SUBJECT = "ledger.policy"
_CLOCKS_DIFFER = timedelta(hours=1)
"""The most by which an event time of a live ledger is behind its recorded time."""


class PolicyChange(TypedDict):
    """A field of the policy that a version changed."""

    field: str
    """The path of the field, such as `roles.agent.limits.refund`."""
    before: Json
    """The value in the version before; null where it had none."""
    after: Json
    """The value in this version; null where it has none."""


class PolicyVersion(TypedDict):
    """A published version of the policy, with its changes from the version before."""

    version: int
    position: int
    published: str
    """The time of the publication."""
    published_by: str
    effective_from: str
    """The time from which it is in force."""
    mode: Literal["enforced", "shadow"]
    """`enforced`, or `shadow` for a policy that only records what it would decide."""
    proposed: str | None
    """The time of its proposal; null where it was published without one."""
    proposed_by: str | None
    approved_by: list[str]
    """The ids of the people who approved the proposal of this version."""
    break_glass: bool
    """An operator published it past the governance of the policy in force."""
    reason: str | None
    sha256: str
    evidence: LimitEvidence | None
    """The effect of its limit in a replay of history, where its proposer attached it."""
    changes: list[PolicyChange]
    """The fields that differ from the version before; of the first version, all."""


async def read_versions(log: Log) -> tuple[list[PolicyVersion], int]:
    """Return all published versions, the newest first, and the position of the last event about policies."""
    found: list[PolicyVersion] = []
    proposals, before, position = Proposals(), dict[str, Json](), 0
    for recorded in await log.read_subject(POLICY_SUBJECT):
        event, position = read_event(recorded), recorded.position
        body = event.body
        if isinstance(body, PolicyPublished):
            proposal = proposals.get(body.sha256)
            proposal = None if proposal is None or proposal.state != "open" else proposal
            found.append(
                {
                    "version": body.version,
                    "position": position,
                    "published": event.stored.time,
                    "published_by": body.published_by,
                    "effective_from": time_text(read_policy(body.policy).effective_from),
                    "mode": body.policy.get("mode", "enforced"),
                    "proposed": None if proposal is None else time_text(proposal.at),
                    "proposed_by": None if proposal is None else proposal.proposed_by,
                    "approved_by": list(body.approved_by),
                    "break_glass": body.break_glass,
                    "reason": body.reason,
                    "sha256": body.sha256,
                    "evidence": plain(body.evidence),
                    "changes": [
                        {"field": field, "before": old, "after": new}
                        for field, old, new in difference(before, body.policy)
                    ],
                }
            )
            before = body.policy
        if isinstance(body, PolicyPublished | PolicyProposed | PolicyApproved | PolicyObjected):
            proposals.apply(body, event.time)
    return found[::-1], position


async def published_policies(log: Log, position: int | None = None) -> list[PolicyPublished]:
    """Return all published policies, the oldest first; with a ``position``, those up to it."""
    stored = await log.read_subject(POLICY_SUBJECT)
    records = (read_event(one).body for one in stored if position is None or one.position <= position)
    return [record for record in records if isinstance(record, PolicyPublished)]


async def read_proposals(log: Log) -> tuple[list[Proposal], int]:
    """Return all proposals of policies, the newest first, and the position of the last event about policies."""
    proposals, position = Proposals(), 0
    for recorded in await log.read_subject(POLICY_SUBJECT):
        event, position = read_event(recorded), recorded.position
        if isinstance(event.body, PolicyPublished | PolicyProposed | PolicyApproved | PolicyObjected):
            proposals.apply(event.body, event.time)
    return proposals.newest_first(), position


def in_force_now(published: Sequence[PolicyPublished]) -> Rules | None:
    """Return the policy in force at this moment, or ``None``."""
    return PolicyHistory.of(published).in_force(datetime.now(UTC))


async def policy_in_force(log: Log, position: int | None = None) -> Policy | None:
    """Return the policy in force, or ``None``.

    With a ``position``, it is the policy that was in force when that event was recorded.
    """
    published, moment = await published_policies(log, position), datetime.now(UTC)
    if position and (recorded := await log.at(position)) is not None:
        moment = parse_time(stored_decoder.decode(recorded.data).recordedtime)
    rules = PolicyHistory.of(published).in_force(moment)
    return None if rules is None else rules.policy


async def was_filled_in_history_mode(log: Log) -> bool:
    """Return whether policies were published in the past of the ledger's clock, which only history mode does."""
    stored = [stored_decoder.decode(one.data) for one in await log.read_subject(POLICY_SUBJECT)]
    return any(parse_time(one.recordedtime) - parse_time(one.time) > _CLOCKS_DIFFER for one in stored)
