"""Administrative events: sources and their profiles, access, skipped events of a view, and forgotten persons."""

from __future__ import annotations

import msgspec

from domain.money import Money
from domain.serialization import Id


class ProjectionSkipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator told a projection to skip an event that it could not process."""

    projection: str
    position: int
    reason: str
    by: Id


class CustomerForgotten(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A customer's keys were destroyed, and their personal data with them; this is repeated after a restore."""

    customer_id: Id
    requested_by: Id
    reason: str | None = None
    interactions: tuple[Id, ...] = ()
    """Interactions with destroyed keys of their own: their texts predate the link to the customer."""


class EmployeeForgotten(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An employee's keys were destroyed, with their name and their words; this is repeated after a restore."""

    employee_id: Id
    requested_by: Id
    reason: str | None = None


class TrailRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named person's audit trail was read, recorded where the policy asks for it (`privacy.record_reads`)."""

    read_by: Id
    about: tuple[str, ...]
    """The subjects that were named: `agent:<id>`, `customer:<id>`, `action:<id>`."""
    up_to: int
    """The position up to which the trail was shown."""


class SourceEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields that all events of the registry of sources share."""

    source: Id
    by: str
    """The operator who registered or changed it."""


class SourceRights(SourceEvent, frozen=True, kw_only=True):
    """The rights of a source from this event on."""

    profile: str
    """A profile, or several joined by ``+``, such as ``desk+people``."""
    facts: tuple[str, ...] = ()
    """Patterns of fact types, such as ``interaction.*``; without any, all types of the profile."""
    roles: tuple[str, ...] = ()
    """The roles that it may request actions for; without any, all roles."""
    per_day: Money | None = None
    """The most that actions of this source may cost a day (UTC)."""


class SourceRegistered(SourceRights, frozen=True, kw_only=True):
    """A source was registered, for the first time or again after it was stopped or retired."""


class SourceChanged(SourceRights, frozen=True, kw_only=True):
    """The rights of a source were replaced."""


class SourceStopped(SourceEvent, frozen=True, kw_only=True):
    """A source was stopped at once, for example after its credential was stolen."""

    reason: str | None = None


class SourceRetired(SourceEvent, frozen=True, kw_only=True):
    """A source was retired: it sends nothing more."""

    reason: str | None = None


class AccessRecorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person signed in or out, or an operator used a right that leaves no other event."""

    who: str
    """The person or the name of a token, ``operator`` on the command line, ``unknown`` of a refused sign-in."""
    what: str
    """`sign-in`, `sign-in refused`, `sign-out`, `session ended`, `token made`, `token revoked`, `export` or `restore`.

    With its object, if any.
    """
    via: str
    """`http` or `cli`."""
