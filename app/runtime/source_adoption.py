"""The rights that an existing ledger's sources have used, so that an upgrade can register them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config import topology
from domain.events import decisions, flags
from domain.events.administration import SourceRegistered
from domain.events.causes import Caused
from domain.events.facts import Fact
from domain.source_registry import CORRECTION, PEOPLE_FACTS, PROFILES
from domain.sources import RESERVED_SOURCES, source_fault
from projections.engine.events import UnknownEventError, read_event

if TYPE_CHECKING:
    from domain.source_registry import SourceRegistry
    from ledger.store.log import Log
    from projections.engine.events import Event

_DESK = (
    decisions.ActionTaken,
    decisions.ActionHeld,
    decisions.ActionVoided,
    decisions.ActionReversed,
    decisions.AuthorityFellShort,
    decisions.EscalationRequested,
    decisions.EscalationWithdrawn,
    flags.FlagAnswered,
)
_APPROVALS = (
    decisions.EscalationApproved,
    decisions.EscalationDenied,
    decisions.EscalationForwarded,
    flags.FlagReviewed,
    flags.FlagUnmasked,
)
_GOVERNANCE = (decisions.PolicyPublished, decisions.BudgetGranted, decisions.BudgetTransferred)


class _Usage:
    """The profiles and the types of facts that one source has used."""

    def __init__(self) -> None:
        self.profiles: set[str] = set()
        self.facts: set[str] = set()

    def registration(self, source: str, by: str) -> SourceRegistered:
        """Return the event that registers the source with what it used."""
        profiles = set(self.profiles)
        if self.facts & PEOPLE_FACTS:
            profiles.add("people")
        allowed = frozenset[str]().union(*(PROFILES[name].facts for name in profiles))
        if self.facts - allowed - {CORRECTION} or not profiles:
            profiles.add("facts")
        names = [name for name in PROFILES if name in profiles]
        facts = tuple(sorted(self.facts - {CORRECTION}))
        return SourceRegistered(source=source, profile="+".join(names), facts=facts, by=by)


async def registrations(log: Log, registry: SourceRegistry, by: str) -> list[SourceRegistered]:
    """Read the log; return the registration of each source that is not registered, in the order of their names."""
    used: dict[str, _Usage] = {}
    holders: dict[str, str] = {}
    async for batch in log.subject_batches("ledger.>"):
        for recorded in batch:
            try:
                event = read_event(recorded)
            except UnknownEventError:
                continue
            _note(event, recorded.subject, used, holders)
    return [
        used[source].registration(source, by)
        for source in sorted(used)
        if registry.source(source) is None and source not in RESERVED_SOURCES and source_fault(source) is None
    ]


def _note(event: Event, subject: str, used: dict[str, _Usage], holders: dict[str, str]) -> None:
    match event.body:
        case Fact() if subject.startswith(f"{topology.FACT_SUBJECT}."):
            used.setdefault(event.stored.source, _Usage()).facts.add(event.type[11:-3])
        case Caused() as body if body.request_sha256 is not None and body.via is None:
            profile = _profile_of(body, holders)
            if profile is not None:
                used.setdefault(body.source, _Usage()).profiles.add(profile)


def _profile_of(body: Caused, holders: dict[str, str]) -> str | None:
    """Return the profile that a request used; ``holders`` has the source of each held action."""
    match body:
        case decisions.ActionSettled():
            return "desk" if holders.get(body.action_id) == body.source else "payments"
        case decisions.ActionHeld():
            holders[body.action_id] = body.source
    for profile, classes in (("desk", _DESK), ("approvals", _APPROVALS), ("governance", _GOVERNANCE)):
        if isinstance(body, classes):
            return profile
    return None
