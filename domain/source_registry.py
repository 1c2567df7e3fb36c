"""The registry of sources: the facts and requests that each source may send, from the events of the operator.

A source has one of six profiles, or several. Its facts are narrowed by patterns of types, its requests by roles and by
an amount a day. Sources without an entry have the rights that the ledger gives to unregistered ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    FlagRequest,
    GrantRequest,
    HoldRequest,
    PolicyApproval,
    PolicyObjection,
    PolicyProposal,
    PolicyRequest,
    Preview,
    ReversalRequest,
    TransferRequest,
)
from domain.events.administration import (
    SourceChanged,
    SourceEvent,
    SourceRegistered,
    SourceRetired,
    SourceRights,
    SourceStopped,
)
from domain.events.facts import FACTS
from domain.money import Money
from domain.serialization import decode, encode
from domain.sources import SIGNED_IN_SOURCE
from domain.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

SourceState = Literal["active", "stopped", "retired"]

_NAMES = frozenset(name[11:-3] for name in FACTS)  # without "resolution." and ".v1"
CORRECTION = "fact.corrected"
PEOPLE_FACTS = frozenset(
    name
    for name in _NAMES
    if name.startswith(("employee.", "training.", "shift.", "delegation.", "relationship."))
    or name in ("customer.linked", "customer.unlinked")
)
"""Facts about employees and relations; authority rests on them."""
_COMMON_FACTS = _NAMES - PEOPLE_FACTS
_DESK = frozenset(("preview", "action", "settle", "void", "reverse", "request", "withdraw", "answer", "brief"))
_APPROVALS = frozenset(("approve", "deny", "forward", "review", "brief"))


class Profile(NamedTuple):
    """The most that a profile allows: names of fact types, and operations."""

    facts: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()


PROFILES: Mapping[str, Profile] = {
    "facts": Profile(_COMMON_FACTS),
    "desk": Profile(_COMMON_FACTS, _DESK),
    "payments": Profile(frozenset(("refund.settled", CORRECTION)), frozenset(("settle",))),
    "people": Profile(PEOPLE_FACTS | {CORRECTION}),
    "approvals": Profile(operations=_APPROVALS),
    "governance": Profile(operations=frozenset(("policy", "grant", "transfer"))),
}
"""The profiles by name."""

_OPERATIONS: Mapping[type[msgspec.Struct], str] = {
    Preview: "preview",
    ActionRequest: "action",
    ReversalRequest: "reverse",
    EscalationAsk: "request",
    GrantRequest: "grant",
    TransferRequest: "transfer",
    **dict.fromkeys((PolicyRequest, PolicyProposal, PolicyApproval, PolicyObjection), "policy"),
}


class ProfileError(ValueError):
    """Rights that no source can have; the message names the field and the remedy.

    Attributes:
        field: `profile`, `facts`, `roles` or `per_day`.

    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Rights(NamedTuple):
    """The rights of one source at the moment."""

    types: frozenset[str] = frozenset()
    """Stored names of the facts that it may send."""
    operations: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    """The roles that it may request for; without any, all roles."""
    per_day: Money | None = None
    settles_all: bool = False
    """True where it settles holds of every source."""


class Source(NamedTuple):
    """A registered source: its name, its state, and its last registered rights."""

    name: str
    state: SourceState
    registered: SourceRights
    rights: Rights
    """The rights while it is active."""


NO_RIGHTS = Rights()


def operation_of(command: object) -> str | None:
    """Return the operation of a source's command by the names of the profiles; ``None`` for a timer's command."""
    if not isinstance(command, msgspec.Struct):
        return None
    operation = _OPERATIONS.get(type(command))
    if operation is None:
        match command:
            case HoldRequest() | EscalationDecision():
                return command.operation
            case FlagRequest():
                return "answer" if command.employee_id is not None else "review"
    return operation


def profiles_of(text: str) -> tuple[str, ...]:
    """Return the profiles in a text such as ``desk+people``.

    Raises:
        ProfileError: one of them does not exist, or occurs twice.

    """
    names = tuple(text.split("+"))
    for name in names:
        if name not in PROFILES:
            near = nearest(name, PROFILES)
            hint = f"did you mean {near}?" if near else f"the profiles are {', '.join(PROFILES)}"
            raise ProfileError("profile", f"there is no profile {name!r}; {hint}")
    if len(set(names)) < len(names):
        raise ProfileError("profile", f"{text!r} names a profile twice")
    return names


def rights_of(registered: SourceRights) -> Rights:
    """Return the rights that an event gives to a source.

    Raises:
        ProfileError: a profile does not exist, or a narrowing does not fit the profile.

    """
    names = profiles_of(registered.profile)
    operations = frozenset[str]().union(*(PROFILES[name].operations for name in names))
    if (registered.roles or registered.per_day is not None) and "desk" not in names:
        field = "roles" if registered.roles else "per_day"
        raise ProfileError(field, f"{field} narrows the profile desk, which this source does not have")
    return Rights(
        types=_types_matching(registered.facts, names),
        operations=operations,
        roles=frozenset(registered.roles),
        per_day=registered.per_day,
        settles_all="payments" in names,
    )


def _types_matching(patterns: Iterable[str], profiles: Iterable[str]) -> frozenset[str]:
    allowed = frozenset[str]().union(*(PROFILES[name].facts for name in profiles))
    found = set[str]()
    for pattern in patterns:
        wanted = {name for name in _NAMES if _matches(name, pattern)}
        if not wanted:
            near = nearest(pattern.removesuffix("*"), _NAMES)
            hint = f"did you mean {near!r}?" if near else "examples are purchase.completed and purchase.*"
            raise ProfileError("facts", f"no type of fact matches {pattern!r}; {hint}")
        if not wanted & allowed:
            others = [name for name, profile in PROFILES.items() if wanted & profile.facts]
            raise ProfileError("facts", f"{pattern!r} needs the profile {' or '.join(others)}")
        found |= wanted & allowed
    if found:
        found.add(CORRECTION)  # a source corrects its own facts, of the types that it may send
    return frozenset(f"resolution.{name}.v1" for name in found or allowed)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


class SourceRegistry:
    """All registered sources, and the rights of the others."""

    def __init__(self, *, admits_others: bool = True) -> None:
        """``admits_others``: unregistered sources may send facts and have the profile `desk`; otherwise nothing."""
        self._sources: dict[str, Source] = {}
        self._admits_others = admits_others
        self._others = NO_RIGHTS
        self._rights: dict[str, Rights] = {}
        self._spent: dict[str, tuple[date, int]] = {}
        self._arrange()

    def apply(self, event: SourceEvent) -> None:
        """Apply an event of the registry. An event that today's rules cannot read leaves the source without rights."""
        before = self._sources.get(event.source)
        match event:
            case SourceRegistered() | SourceChanged():
                try:
                    rights = rights_of(event)
                except ProfileError:
                    rights = NO_RIGHTS
                state: SourceState = "active" if isinstance(event, SourceRegistered) or before is None else before.state
                self._sources[event.source] = Source(event.source, state, event, rights)
            case SourceStopped() | SourceRetired() if before is not None:
                state = "stopped" if isinstance(event, SourceStopped) else "retired"
                self._sources[event.source] = before._replace(state=state)
        self._arrange()

    def note(self, name: str) -> bytes:
        """Return the entry of a source as JSON text; ``restore`` reads it."""
        source = self._sources.get(name)
        return encode([] if source is None else [source.state, source.registered])

    def restore(self, note: bytes) -> None:
        """Restore an entry from its note."""
        entry = msgspec.json.decode(note, type=list[msgspec.Raw])
        if not entry:
            return
        registered = decode(SourceRegistered, entry[1])
        self.apply(registered)
        self._sources[registered.source] = self._sources[registered.source]._replace(
            state=msgspec.json.decode(entry[0], type=SourceState)
        )
        self._arrange()

    def _arrange(self) -> None:
        self._rights = {
            name: source.rights if source.state == "active" else NO_RIGHTS for name, source in self._sources.items()
        }
        people = any(
            "people" in one.registered.profile.split("+") and one.state != "retired" for one in self._sources.values()
        )
        self._has_tills = any(
            "facts" in one.registered.profile.split("+") and one.state != "retired" for one in self._sources.values()
        )
        if self._admits_others:
            facts = _COMMON_FACTS if people else _NAMES
            self._others = Rights(frozenset(f"resolution.{name}.v1" for name in facts), _DESK)

    def source(self, name: str) -> Source | None:
        """Return a registered source, also one that was stopped or retired; ``None`` for an unregistered one."""
        return self._sources.get(name)

    def all(self) -> list[Source]:
        """Return the registered sources in the order of their names."""
        return [self._sources[name] for name in sorted(self._sources)]

    def rights(self, name: str) -> Rights:
        """Return the rights of a source; a stopped or retired one has none."""
        return self._rights.get(name, self._others)

    def fact_refusal(self, name: str, type_name: str) -> str | None:
        """Return the reason why a source may not send a type of fact, or ``None``."""
        if name == SIGNED_IN_SOURCE:
            return f"the source {name!r} is reserved for signed-in people; use another name for your system"
        if type_name in self._rights.get(name, self._others).types:
            return None
        return self._refusal(name, f"send {type_name}", "")

    def request_refusal(self, name: str, operation: str) -> str | None:
        """Return the reason why a source may not request an operation, or ``None``."""
        if operation in self._rights.get(name, self._others).operations:
            return None
        needed = next((one for one, profile in PROFILES.items() if operation in profile.operations), "")
        return self._refusal(name, f"request `{operation}`", needed)

    def _refusal(self, name: str, attempt: str, profile: str) -> str:
        source, needed = self._sources.get(name), f" --profile {profile}" if profile else ""
        if source is None:
            return (
                f"the source {name!r} is not registered, and may not {attempt}: "
                f"an operator registers it with `admin sources add NAME{needed}`"
            )
        if source.state != "active":
            return f"the source {name!r} is {source.state}: an operator registers it again with `admin sources add`"
        return (
            f"the source {name!r} may not {attempt}: "
            f"an operator widens its rights with `admin sources change NAME{needed}`"
        )

    def proves_payments(self, name: str) -> bool:
        """Return whether a payment that this source records shows what is owed.

        Unregistered sources share one credential, so they prove nothing once a source with the profile `facts` exists.
        """
        return name in self._sources or not self._has_tills

    def is_shut(self, name: str) -> bool:
        """Return whether a source was stopped or retired."""
        source = self._sources.get(name)
        return source is not None and source.state != "active"

    # ------------------------------------------------------------------ the amount a day

    def count(self, name: str, day: date, amount: Money) -> int | None:
        """Count an action's amount towards the day's amount of its source.

        Returns:
            the day's amount in minor units; ``None`` where no amount a day limits the source in this currency.

        """
        limit = self.rights(name).per_day
        if limit is None or limit.currency != amount.currency:
            return None
        spent = self.spent_on(name, day) + amount.minor
        self._spent[name] = day, spent
        return spent

    def restore_spent(self, name: str, day: date, spent_minor: int) -> None:
        """Restore the amount that ``count`` returned."""
        self._spent[name] = day, spent_minor

    def spent_on(self, name: str, day: date) -> int:
        """Return the amount that actions of a source cost on a day, in minor units, as far as it was counted."""
        last, spent = self._spent.get(name, (day, 0))
        return spent if last == day else 0
