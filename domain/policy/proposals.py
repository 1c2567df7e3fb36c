"""Proposals of policies: their approvals and objections, folded from the events of the policy's stream."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from domain.events.decisions import LimitEvidence, PolicyApproved, PolicyObjected, PolicyProposed, PolicyPublished
from domain.serialization import decode, encode

if TYPE_CHECKING:
    from domain.events.decisions import ProposalEvent


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposed policy, and how far it has come."""

    policy: dict[str, Any]
    sha256: str
    replaces: int
    proposed_by: str
    at: datetime
    signed_in: bool = False
    due: datetime | None = None
    """The end of the time for objections."""
    approved_by: tuple[str, ...] = ()
    missing: int = 0
    evidence: LimitEvidence | None = None
    """The effect of the proposed limit, where the proposer attached it."""
    state: Literal["open", "objected", "published"] = "open"


class Proposals:
    """All proposals by the SHA-256 of their policy; a policy that is proposed again begins anew."""

    def __init__(self) -> None:
        self._by_sha256: dict[str, Proposal] = {}

    def get(self, sha256: str) -> Proposal | None:
        """Return the newest proposal of the policy with this SHA-256, or ``None``."""
        return self._by_sha256.get(sha256)

    def newest_first(self) -> list[Proposal]:
        """Return all proposals, the newest first."""
        return sorted(self._by_sha256.values(), key=lambda one: one.at, reverse=True)

    def apply(self, event: ProposalEvent | PolicyPublished, at: datetime) -> str | None:
        """Apply an event; return the SHA-256 of the proposal that it changed, or ``None``."""
        found = self._by_sha256.get(event.sha256)
        match event:
            case PolicyProposed():
                changed = Proposal(
                    policy=event.policy,
                    sha256=event.sha256,
                    replaces=event.replaces,
                    proposed_by=event.proposed_by,
                    at=at,
                    signed_in=event.signed_in,
                    due=event.due,
                    missing=event.missing,
                    evidence=event.evidence,
                )
            case _ if found is None or found.state != "open":
                return None
            case PolicyApproved():
                approved_by = (*found.approved_by, event.approved_by)
                changed = msgspec.structs.replace(found, approved_by=approved_by, missing=event.missing)
            case PolicyObjected():
                changed = msgspec.structs.replace(found, state="objected")
            case PolicyPublished():
                changed = msgspec.structs.replace(found, state="published")
        self._by_sha256[event.sha256] = changed
        return event.sha256

    def due_by(self, moment: datetime, replaces: int) -> list[Proposal]:
        """Return the open proposals to replace this version with all approvals, after their time for objections."""
        return [
            one
            for one in self._by_sha256.values()
            if one.state == "open"
            and one.due is not None
            and one.due <= moment
            and not one.missing
            and one.replaces == replaces
        ]

    def note(self, sha256: str) -> bytes:
        """Return a proposal as bytes, for ``restore``."""
        return encode(self._by_sha256[sha256])

    def restore(self, note: bytes) -> None:
        """Restore a proposal from its note."""
        proposal = decode(Proposal, note)
        self._by_sha256[proposal.sha256] = proposal
